//! Something a stage depends on goes away and comes back: nothing is given up, nothing rushes in.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use pipeline::testing::PATIENCE;
use pipeline::{
    Batching, BoxError, Emits, Event, Fault, Lane, Operator, OperatorKind, OperatorSpec, OutcomeKind, Output,
    PayloadKind, Services, StageTypes, Transport,
};
use serde::Deserialize;

use crate::support::{event, eventually, start, start_on, terminal};

static AWAY: AtomicBool = AtomicBool::new(true);
static TRIES: AtomicUsize = AtomicUsize::new(0);

#[derive(Deserialize)]
struct LeaningSpec {
    /// Whether it leans on what never comes back.
    forever: bool,
}

/// Needs what is away at first.
struct Leaning(bool);

impl OperatorSpec for LeaningSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Same }
    }
    fn batching(&self) -> Batching {
        Batching::greedy(4)
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Leaning(self.forever)))
    }
}

#[async_trait]
impl Operator for Leaning {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        TRIES.fetch_add(1, Ordering::SeqCst);
        if self.0 || AWAY.load(Ordering::SeqCst) {
            return Err(Fault::unavailable("nobody answers"));
        }
        for event in batch {
            out.forward(event).await?;
        }
        Ok(())
    }
}

const LEANING: OperatorKind = OperatorKind::of::<LeaningSpec>("leaning", "needs something else");

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out_and_costs_no_attempt() {
    let toml =
        "[flow.test]\nretry = { attempts = 1 }\n[[flow.test.stage]]\nuse = \"leaning\"\nforever = false\nworkers = 4\n";
    let (transport, running) = start(toml, &[LEANING], 100).await;
    for number in 0..40 {
        transport.submit(event(&format!("e{number}"), Lane::Interactive, "x")).await.unwrap();
    }
    let engine = running.engine();
    eventually("the stage says that it waits", async || engine.stats()[0].stages[0].waits).await;
    let before = TRIES.load(Ordering::SeqCst);
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let tries = TRIES.load(Ordering::SeqCst) - before;
    assert!((2..=20).contains(&tries), "one worker looks now and then: {tries} tries in 10 s");
    AWAY.store(false, Ordering::SeqCst);
    for number in 0..40 {
        assert_eq!(terminal(&transport, &format!("e{number}")).await.kind, OutcomeKind::Done);
    }
    let stats = engine.stats().remove(0);
    assert_eq!((stats.retried, stats.failed, stats.stages[0].waits), (0, 0, false));
    running.drain(PATIENCE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn restarts_during_an_outage_cost_no_attempt_and_are_no_deaths() {
    let toml = "[flow.test]\nretry = { attempts = 1 }\n[[flow.test.stage]]\nuse = \"leaning\"\nforever = true\n";
    let (transport, mut running) = start(toml, &[LEANING], 100).await;
    for number in 0..4 {
        transport.submit(event(&format!("e{number}"), Lane::Interactive, "x")).await.unwrap();
    }
    for _ in 0..10 {
        let engine = running.engine();
        eventually("the stage says that it waits", async || engine.stats()[0].stages[0].waits).await;
        tokio::time::sleep(std::time::Duration::from_secs(600)).await;
        running.drain(PATIENCE).await.unwrap();
        assert_eq!((engine.stats()[0].failed, transport.letters().len()), (0, 0));
        running = start_on(&transport, toml, &[LEANING]).await;
    }
    drop(running);
    let running = start_on(&transport, "[[flow.test.stage]]\nuse = \"noop\"\n", &[]).await;
    for number in 0..4 {
        assert_eq!(terminal(&transport, &format!("e{number}")).await.kind, OutcomeKind::Done);
    }
    running.drain(PATIENCE).await.unwrap();
}

/// The worker before the stage that waits is blocked by its full queue.
#[tokio::test(start_paused = true)]
async fn a_backlog_before_the_stage_that_waits_does_not_hold_up_the_drain() {
    let toml = "[flow.test]\nretry = { attempts = 1 }\n[[flow.test.stage]]\nuse = \"noop\"\nqueue = { events = 2 }\n\
                [[flow.test.stage]]\nuse = \"leaning\"\nforever = true\nqueue = { events = 2 }\n";
    let (transport, running) = start(toml, &[LEANING], 100).await;
    for number in 0..40 {
        transport.submit(event(&format!("e{number}"), Lane::Interactive, "x")).await.unwrap();
    }
    let engine = running.engine();
    eventually("the stage says that it waits", async || engine.stats()[0].stages[1].waits).await;
    let begun = tokio::time::Instant::now();
    running.drain(PATIENCE).await.unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((engine.stats()[0].failed, transport.letters().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_its_limit_is_a_failure_in_the_end() {
    let toml = "[flow.test]\nretry = { attempts = 2, outage_ms = 1000 }\n[[flow.test.stage]]\nuse = \"leaning\"\nforever = true\n";
    let (transport, running) = start(toml, &[LEANING], 100).await;
    transport.submit(event("e", Lane::Interactive, "x")).await.unwrap();
    assert_eq!(terminal(&transport, "e").await.kind, OutcomeKind::Failed);
    let letters = transport.letters();
    assert_eq!((letters.len(), letters[0].faults), (1, 2));
    assert!(letters[0].error.as_deref().unwrap().contains("nobody answers"));
    running.drain(PATIENCE).await.unwrap();
}
