//! Bulk work keeps out of the way while interactive work comes, and only then.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pipeline::testing::PATIENCE;
use pipeline::{
    Batching, BoxError, Emits, Event, Fault, Lane, Operator, OperatorKind, OperatorSpec, Output, PayloadKind, Services,
    StageTypes, Transport,
};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::{event, eventually, start, terminal};

static BULK_AT_WORK: AtomicUsize = AtomicUsize::new(0);
static LARGEST_BULK_BATCH: AtomicUsize = AtomicUsize::new(0);
static LET_GO: Semaphore = Semaphore::const_new(0);

#[derive(Deserialize)]
struct HoldingSpec {}

/// Holds bulk batches until the test lets go; interactive events pass.
struct Holding;

impl OperatorSpec for HoldingSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Same }
    }
    fn batching(&self) -> Batching {
        Batching::greedy(4)
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Holding))
    }
}

#[async_trait]
impl Operator for Holding {
    async fn process(&mut self, batch: Vec<Event>, _: &mut Output) -> Result<(), Fault> {
        if batch[0].envelope.lane == Lane::Bulk {
            BULK_AT_WORK.fetch_add(1, Ordering::SeqCst);
            LARGEST_BULK_BATCH.fetch_max(batch.len(), Ordering::SeqCst);
            LET_GO.acquire().await.map_err(Fault::retry)?.forget();
            BULK_AT_WORK.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

const HOLDING: OperatorKind = OperatorKind::of::<HoldingSpec>("holding", "holds bulk work");

/// Time is paused: it passes only while everything waits.
#[tokio::test(start_paused = true)]
async fn one_worker_stays_free_while_interactive_work_comes() {
    let toml = "[[flow.test.stage]]\nuse = \"holding\"\nworkers = 2\n";
    let (transport, running) = start(toml, &[HOLDING], 100).await;
    transport.submit(event("first", Lane::Interactive, "x")).await.unwrap();
    terminal(&transport, "first").await;
    for number in 0..20 {
        transport.submit(event(&format!("b{number}"), Lane::Bulk, "x")).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(BULK_AT_WORK.load(Ordering::SeqCst), 1, "the other worker is kept free");
    assert_eq!(LARGEST_BULK_BATCH.load(Ordering::SeqCst), 1);
    transport.submit(event("second", Lane::Interactive, "x")).await.unwrap();
    terminal(&transport, "second").await;
    assert_eq!(BULK_AT_WORK.load(Ordering::SeqCst), 1);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(BULK_AT_WORK.load(Ordering::SeqCst), 2, "nobody came for a second");
    LET_GO.add_permits(100);
    eventually("all is done", async || running.engine().stats()[0].done == 22).await;
    assert!(LARGEST_BULK_BATCH.load(Ordering::SeqCst) > 1);
    running.drain(PATIENCE).await.unwrap();
}

/// When bulk events were begun that take [`TAKES`] each.
static BEGUN: Mutex<Vec<Instant>> = Mutex::new(Vec::new());
const TAKES: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct TakingSpec {}

/// Takes its time for bulk events.
struct Taking;

impl OperatorSpec for TakingSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Same }
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Taking))
    }
}

#[async_trait]
impl Operator for Taking {
    async fn process(&mut self, batch: Vec<Event>, _: &mut Output) -> Result<(), Fault> {
        if batch[0].envelope.lane == Lane::Bulk {
            BEGUN.lock().unwrap().push(Instant::now());
            tokio::time::sleep(TAKES).await;
        }
        Ok(())
    }
}

const TAKING: OperatorKind = OperatorKind::of::<TakingSpec>("taking", "takes its time for bulk work");

#[tokio::test(start_paused = true)]
async fn bulk_work_rests_while_interactive_work_comes() {
    let (transport, running) = start("[[flow.test.stage]]\nuse = \"taking\"\n", &[TAKING], 100).await;
    transport.submit(event("first", Lane::Interactive, "x")).await.unwrap();
    terminal(&transport, "first").await;
    for number in 0..20 {
        transport.submit(event(&format!("b{number}"), Lane::Bulk, "x")).await.unwrap();
    }
    eventually("all is done", async || running.engine().stats()[0].done == 21).await;
    let begun = BEGUN.lock().unwrap().clone();
    let pauses: Vec<Duration> = begun.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[..3].iter().all(|pause| *pause >= 2 * TAKES), "{pauses:?}");
    assert!(pauses[12..].iter().all(|pause| *pause < 2 * TAKES), "nobody came for a second: {pauses:?}");
    running.drain(PATIENCE).await.unwrap();
}
