//! The engine's promises, each provoked: bounded, fair, isolated, settled once, drained.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{event, eventually, start, start_on, terminal, token};
use async_trait::async_trait;
use pipeline::testing::PATIENCE;
use pipeline::{
    Batching, BodyOwner, BoxError, Content, Emits, Event, Fault, Lane, Operator, OperatorKind, OperatorSpec,
    OutcomeKind, Output, Payload, PayloadKind, Rejection, Services, StageTypes, Transport,
};
use serde::Deserialize;
use tokio::sync::Semaphore;

const NOOP: &str = "[[flow.test.stage]]\nuse = \"noop\"\n";

#[tokio::test]
async fn every_event_ends_in_one_terminal_result() {
    let (transport, running) = start(NOOP, &[], 1_000).await;
    for n in 0..200 {
        transport.submit(event(&format!("e{n}"), Lane::Interactive, "x")).await.unwrap();
    }
    for n in 0..200 {
        assert_eq!(terminal(&transport, &format!("e{n}")).await.kind, OutcomeKind::Done);
    }
    let stats = running.engine().stats().remove(0);
    running.drain(PATIENCE).await.unwrap();
    assert_eq!((stats.delivered, stats.failed, stats.retried), (200, 0, 0));
    let backlog = transport.backlog(&token("test")).await.unwrap();
    assert!(backlog.is_empty());
}

#[tokio::test]
async fn a_poison_event_harms_only_itself() {
    for kind in ["failing", "panicking"] {
        let toml = format!(
            "[flow.test]\nretry = {{ attempts = 3, backoff_ms = [0] }}\n[[flow.test.stage]]\nuse = \"{kind}\"\nmarker = \"bad\"\n"
        );
        let transport = pipeline::testing::MemoryTransport::with_flows([("test", 100)]);
        for n in 0..20 {
            let body = if n == 7 { "bad" } else { "good" };
            transport.submit(event(&format!("e{n}"), Lane::Interactive, body)).await.unwrap();
        }
        let running = start_on(&transport, &toml, &[]).await;
        for n in 0..20 {
            let outcome = terminal(&transport, &format!("e{n}")).await;
            let expected = if n == 7 { OutcomeKind::Failed } else { OutcomeKind::Done };
            assert_eq!(outcome.kind, expected, "{kind} e{n}");
        }
        let retried = running.engine().stats()[0].retried;
        running.drain(PATIENCE).await.unwrap();
        assert_eq!(retried, 2, "two retries, then given up");
        let dead = transport.letters();
        assert_eq!(dead.len(), 1);
        assert_eq!(dead[0].envelope.id, token("e7"));
        assert_eq!(dead[0].envelope.attempt, 3);
        assert!(transport.backlog(&token("test")).await.unwrap().is_empty(), "its place is free");
    }
}

/// Passes an event on for every permit the test gives, and counts what it holds.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    taken: Arc<AtomicUsize>,
}

static GATES: std::sync::LazyLock<std::sync::Mutex<std::collections::HashMap<String, Gate>>> =
    std::sync::LazyLock::new(Default::default);

fn gate(name: &str) -> Gate {
    let mut gates = GATES.lock().unwrap();
    let closed = || Gate { open: Arc::new(Semaphore::new(0)), taken: Arc::default() };
    gates.entry(name.to_owned()).or_insert_with(closed).clone()
}

#[derive(Deserialize)]
struct GateSpec {
    gate: String,
}

impl OperatorSpec for GateSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Same }
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(gate(&self.gate)))
    }
}

#[async_trait]
impl Operator for Gate {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            self.taken.fetch_add(1, Ordering::SeqCst);
            self.open.acquire().await.map_err(Fault::retry)?.forget();
            out.forward(event).await?;
        }
        Ok(())
    }
}

const GATE: OperatorKind = OperatorKind::of::<GateSpec>("gate", "waits for the test");

#[tokio::test]
async fn a_slow_stage_bounds_what_is_pulled_and_the_rest_is_refused() {
    let toml = "[[flow.test.stage]]\nuse = \"gate\"\ngate = \"slow\"\nqueue = { events = 4 }\n";
    let (transport, running) = start(toml, &[GATE], 10).await;
    for n in 0..10 {
        transport.submit(event(&format!("e{n}"), Lane::Interactive, "x")).await.unwrap();
    }
    assert!(matches!(
        transport.submit(event("e10", Lane::Interactive, "x")).await,
        Err(pipeline::TransportError::Full { .. })
    ));
    eventually("the queue fills", async || running.engine().stats()[0].stages[0].queued == 4).await;
    let stats = running.engine().stats().remove(0);
    assert_eq!(stats.in_flight, 5, "four wait and one is in work");
    gate("slow").open.add_permits(100);
    for n in 0..10 {
        terminal(&transport, &format!("e{n}")).await;
    }
    running.drain(PATIENCE).await.unwrap();
}

/// Fills a stage that holds one event and queues two, with five more; what became of `e0` to `e7`.
async fn overflow(policy: &str) -> (Vec<OutcomeKind>, u64, usize) {
    let toml = format!(
        "[[flow.test.stage]]\nuse = \"gate\"\ngate = \"{policy}\"\nqueue = {{ events = 2, overflow = \"{policy}\" }}\n\
         [[flow.test.stage]]\nuse = \"echo\"\n"
    );
    let (transport, running) = start(&toml, &[GATE, ECHO], 100).await;
    transport.submit(event("e0", Lane::Interactive, "x")).await.unwrap();
    eventually("the first is at work", async || gate(policy).taken.load(Ordering::SeqCst) == 1).await;
    for n in 1..8 {
        transport.submit(event(&format!("e{n}"), Lane::Interactive, "x")).await.unwrap();
    }
    eventually("five are left out", async || running.engine().stats()[0].stages[0].dropped == 5).await;
    gate(policy).open.add_permits(100);
    let mut kinds = Vec::new();
    for n in 0..8 {
        kinds.push(terminal(&transport, &format!("e{n}")).await.kind);
    }
    let dropped = running.engine().stats()[0].stages[0].dropped;
    running.drain(PATIENCE).await.unwrap();
    (kinds, dropped, transport.letters().len())
}

#[tokio::test]
async fn what_an_edge_leaves_out_is_its_choice_and_always_told() {
    use OutcomeKind::{Done, Failed};
    let newest = vec![Done, Done, Done, Failed, Failed, Failed, Failed, Failed];
    let oldest = vec![Done, Failed, Failed, Failed, Failed, Failed, Done, Done];
    assert_eq!(overflow("drop_newest").await, (newest.clone(), 5, 0));
    assert_eq!(overflow("reject").await, (newest, 5, 0));
    assert_eq!(overflow("drop_oldest").await, (oldest, 5, 0));
}

#[tokio::test]
async fn an_interactive_event_overtakes_a_full_bulk_backlog() {
    let toml = "[[flow.test.stage]]\nuse = \"gate\"\ngate = \"lanes\"\nqueue = { events = 8 }\n";
    let (transport, running) = start(toml, &[GATE], 100).await;
    for n in 0..50 {
        transport.submit(event(&format!("b{n}"), Lane::Bulk, "x")).await.unwrap();
    }
    eventually("bulk fills its half", async || running.engine().stats()[0].stages[0].queued >= 3).await;
    transport.submit(event("now", Lane::Interactive, "x")).await.unwrap();
    eventually("it is pulled", async || transport.backlog(&token("test")).await.unwrap().interactive == 1).await;
    let before = gate("lanes").taken.load(Ordering::SeqCst);
    eventually("it waits in the queue", async || running.engine().stats()[0].in_flight >= 5).await;
    // One for the bulk event in work, one for the interactive one.
    gate("lanes").open.add_permits(2);
    terminal(&transport, "now").await;
    assert!(gate("lanes").taken.load(Ordering::SeqCst) <= before + 2, "no bulk event went first");
    gate("lanes").open.add_permits(100);
    running.drain(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn drain_finishes_what_was_begun_and_names_what_is_stuck() {
    let toml = "[[flow.test.stage]]\nuse = \"gate\"\ngate = \"drain\"\nname = \"stuck\"\n";
    let (transport, running) = start(toml, &[GATE], 100).await;
    transport.submit(event("e0", Lane::Interactive, "x")).await.unwrap();
    eventually("it is taken", async || gate("drain").taken.load(Ordering::SeqCst) == 1).await;
    let busy = running.drain(Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(busy.len(), 1);
    assert_eq!((busy[0].stage.as_str(), busy[0].events), ("test/stuck", 1));

    // Nothing was acknowledged: a new process does it.
    gate("drain").open.add_permits(1);
    let running = start_on(&transport, toml, &[GATE]).await;
    assert_eq!(terminal(&transport, "e0").await.kind, OutcomeKind::Done);
    running.drain(PATIENCE).await.unwrap();
}

#[derive(Deserialize)]
struct SplitSpec {}
struct Split;

impl OperatorSpec for SplitSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Kind(PayloadKind::Bytes) }
    }
    fn batching(&self) -> Batching {
        Batching::greedy(8)
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Split))
    }
}

#[async_trait]
impl Operator for Split {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            for n in 0..5 {
                out.emit(&event, Payload::Bytes(Content::inline("application/json", format!("{n}")))).await?;
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct EchoSpec {
    reject: Option<String>,
}

impl OperatorSpec for EchoSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Nothing }
    }
    fn answers(&self) -> bool {
        true
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Echo { reject: self.reject.clone() }))
    }
}

struct Echo {
    reject: Option<String>,
}

#[async_trait]
impl Operator for Echo {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            let Payload::Bytes(content) = &event.payload else { continue };
            let pipeline::Body::Inline(bytes) = &content.body else { continue };
            if self.reject.as_deref().map(str::as_bytes) == Some(bytes) {
                out.reject(&event, Rejection::unusable("marked", "it is the marked one"));
            } else {
                out.respond(&event, content.clone());
            }
        }
        Ok(())
    }
}

const SPLIT: OperatorKind = OperatorKind::of::<SplitSpec>("split5", "five of each");
const ECHO: OperatorKind = OperatorKind::of::<EchoSpec>("echo", "answers what came");

fn inline(outcome: &pipeline::Outcome) -> serde_json::Value {
    let pipeline::Body::Inline(bytes) = &outcome.content.body else { panic!("a short result is inline") };
    serde_json::from_slice(bytes).unwrap()
}

#[tokio::test]
async fn a_split_event_is_done_when_its_last_part_is_and_answers_in_order() {
    let toml = "[[flow.test.stage]]\nuse = \"split5\"\n[[flow.test.stage]]\nuse = \"echo\"\nworkers = 3\n";
    let (transport, running) = start(toml, &[SPLIT, ECHO], 100).await;
    transport.submit(event("e0", Lane::Interactive, "x")).await.unwrap();
    let outcome = terminal(&transport, "e0").await;
    assert_eq!(inline(&outcome), serde_json::json!([0, 1, 2, 3, 4]));
    running.drain(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn one_rejected_part_fails_the_request_with_its_reason_and_no_dead_letter() {
    let toml = "[[flow.test.stage]]\nuse = \"split5\"\n[[flow.test.stage]]\nuse = \"echo\"\nreject = \"3\"\n";
    let (transport, running) = start(toml, &[SPLIT, ECHO], 100).await;
    transport.submit(event("e0", Lane::Interactive, "x")).await.unwrap();
    let outcome = terminal(&transport, "e0").await;
    assert_eq!(outcome.kind, OutcomeKind::Failed);
    assert_eq!(inline(&outcome)["code"], "marked");
    running.drain(PATIENCE).await.unwrap();
    assert!(transport.letters().is_empty(), "the client's own mistake needs no look by an operator");
}

#[tokio::test]
async fn an_expired_event_is_not_worked_on() {
    let toml = "[[flow.test.stage]]\nuse = \"gate\"\ngate = \"expired\"\n";
    let (transport, running) = start(toml, &[GATE], 100).await;
    let mut late = event("late", Lane::Interactive, "x");
    late.envelope.deadline = Some(late.envelope.time - Duration::from_secs(1));
    transport.submit(late).await.unwrap();
    let outcome = terminal(&transport, "late").await;
    assert_eq!(inline(&outcome)["status"], 504);
    assert_eq!(gate("expired").taken.load(Ordering::SeqCst), 0);
    running.drain(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn claims_are_fetched_for_the_stage_and_dropped_at_the_end() {
    let toml = "[[flow.test.stage]]\nuse = \"echo\"\n";
    let (transport, running) = start(toml, &[ECHO], 100).await;
    let body = bytes::Bytes::from(vec![b'7'; 300 << 10]);
    let content =
        pipeline::claims::store_bytes(&transport, BodyOwner::Event(&token("test")), "text/plain", body.clone())
            .await
            .unwrap();
    assert_eq!(transport.claim_count(), 1);
    let mut large = event("large", Lane::Interactive, "");
    large.payload = Payload::Bytes(content);
    transport.submit(large).await.unwrap();
    let outcome = terminal(&transport, "large").await;
    assert_eq!(pipeline::claims::fetch(&transport, &outcome.content).await.unwrap(), body);
    eventually("only the result's claim is left", async || transport.claim_count() == 1).await;
    running.drain(PATIENCE).await.unwrap();
}
