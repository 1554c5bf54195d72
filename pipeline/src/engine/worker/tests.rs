//! What a worker does with batches that succeed, fail, panic, hang or meet an outage. The clock is paused.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio_util::task::TaskTracker;

use super::*;
use crate::edges::{Downstream, Overflow, Queue, QueueLimits};
use crate::engine::flow_metrics::StageMetrics;
use crate::engine::image_admission::ImageAdmission;
use crate::engine::outage::Outage;
use crate::envelope::Lane;
use crate::event::{Root, Verdict};
use crate::operator::Batching;
use crate::payload::{Body, Claim, Content, Digest, Payload};
use crate::pixel_budget::PixelBudget;
use crate::registry::Services;
use crate::testing::units::{Roots, flow_shared, ids, token};
use crate::testing::{MemoryTransport, TransportWrapper};
use crate::transport::{BodyOwner, TransportError};

/// What an operator does with its next batch.
#[derive(Clone, Copy, Debug)]
enum Step {
    Succeed,
    Fail,
    Break,
    Panic,
    Hang,
    Unavailable,
}

/// Follows a script, one step a call, and succeeds after its end. Records the batches it got.
#[derive(Clone, Default)]
struct Scripted {
    steps: Arc<Mutex<VecDeque<Step>>>,
    batches: Arc<Mutex<Vec<Vec<String>>>>,
}

#[async_trait]
impl Operator for Scripted {
    async fn process(&mut self, batch: Vec<Event>, _: &mut Output) -> Result<(), Fault> {
        self.batches.lock().unwrap().push(ids(&batch).into_iter().map(str::to_owned).collect());
        let step = self.steps.lock().unwrap().pop_front().unwrap_or(Step::Succeed);
        match step {
            Step::Succeed => Ok(()),
            Step::Fail => Err(Fault::retry("it fails")),
            Step::Break => Err(Fault::fatal("it is broken")),
            Step::Panic => panic!("on purpose"),
            Step::Hang => std::future::pending().await,
            Step::Unavailable => Err(Fault::unavailable("nobody answers")),
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(60);

struct Bench {
    operator: Scripted,
    roots: Roots,
    stage: Arc<Stage>,
    flow: Arc<FlowShared>,
}

impl Bench {
    fn new(steps: &[Step]) -> Self {
        let operator = Scripted::default();
        operator.steps.lock().unwrap().extend(steps);
        let fresh = operator.clone();
        let limits = QueueLimits { events: 16, bytes: 1 << 20, overflow: Overflow::Block };
        let stage = Stage {
            name: "s".into(),
            kind: "scripted",
            workers: 1,
            batching: Batching::greedy(8),
            timeout: TIMEOUT,
            queue: Arc::new(Queue::new("s".into(), limits, 1)),
            downstream: Downstream::End,
            metrics: StageMetrics::new(&token("test"), "s"),
            outage: Outage::new(token("test"), "s".into()),
            images: ImageAdmission::new(PixelBudget::default()),
            running: TaskTracker::new(),
            build: Arc::new(move || Ok(Box::new(fresh.clone()))),
        };
        let flow = Arc::new(flow_shared(&Services::default()));
        Self { operator, roots: Roots::new(), stage: Arc::new(stage), flow }
    }

    fn send(&self, ids: &[&str]) {
        for id in ids {
            self.stage.queue.try_send(self.roots.event(id, Lane::Interactive, "x")).unwrap();
        }
    }

    fn worker(&self) -> Worker {
        Worker {
            stage: Arc::clone(&self.stage),
            flow: Arc::clone(&self.flow),
            transport: Arc::new(MemoryTransport::with_flows([("test", 10)])),
            operator: Box::new(self.operator.clone()),
        }
    }

    /// Runs a worker until everything that waits is done.
    async fn run(&self) -> Result<(), BoxError> {
        self.stage.queue.close();
        self.worker().run().await
    }

    fn batches(&self) -> Vec<Vec<String>> {
        self.operator.batches.lock().unwrap().clone()
    }

    /// The verdicts on the roots that are settled, by their ids.
    fn verdicts(&mut self) -> Vec<(String, Verdict)> {
        let verdict = |root: Arc<Root>| (root.envelope.id.to_string(), root.take_unsettled().unwrap().verdict);
        std::iter::from_fn(|| self.roots.finished.try_recv().ok()).map(verdict).collect()
    }

    /// The ids of the events that are to be redelivered, and all ids that are settled.
    fn retried(&mut self) -> (Vec<String>, usize) {
        let verdicts = self.verdicts();
        let count = verdicts.len();
        let retried = verdicts.into_iter().filter(|(_, verdict)| verdict.retry.is_some()).map(|(id, _)| id);
        (retried.collect(), count)
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_succeeds_settles_its_events() {
    let mut bench = Bench::new(&[]);
    bench.send(&["a", "b"]);
    bench.run().await.unwrap();
    assert_eq!(bench.batches(), [["a", "b"]]);
    assert_eq!(bench.retried(), (vec![], 2));
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_failed_batch_are_tried_one_at_a_time() {
    let mut bench = Bench::new(&[Step::Fail, Step::Succeed, Step::Fail]);
    bench.send(&["a", "b"]);
    bench.run().await.unwrap();
    assert_eq!(bench.batches(), [vec!["a", "b"], vec!["a"], vec!["b"]]);
    assert_eq!(bench.retried(), (vec!["b".to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn a_single_event_that_fails_is_not_tried_again_here() {
    let mut bench = Bench::new(&[Step::Fail]);
    bench.send(&["a"]);
    bench.run().await.unwrap();
    assert_eq!((bench.batches().len(), bench.retried()), (1, (vec!["a".to_owned()], 1)));
}

#[tokio::test(start_paused = true)]
async fn a_fatal_fault_stops_the_worker_and_hands_the_batch_back() {
    let mut bench = Bench::new(&[Step::Break]);
    bench.send(&["a", "b"]);
    assert_eq!(bench.run().await.unwrap_err().to_string(), "it is broken");
    assert_eq!(bench.retried().0, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_fatal_fault_among_single_events_hands_the_rest_back_without_a_fault() {
    let mut bench = Bench::new(&[Step::Fail, Step::Break]);
    bench.send(&["a", "b", "c"]);
    bench.run().await.unwrap_err();
    let verdicts = bench.verdicts();
    let ended =
        |(id, verdict): &(String, Verdict)| (id.clone(), verdict.retry.is_some(), verdict.handed_back.is_some());
    let ended: Vec<_> = verdicts.iter().map(ended).collect();
    assert_eq!(ended, [("a".into(), true, false), ("b".into(), false, true), ("c".into(), false, true)]);
}

#[tokio::test(start_paused = true)]
async fn after_a_panic_the_worker_goes_on_with_a_fresh_operator() {
    let mut bench = Bench::new(&[Step::Panic]);
    bench.send(&["a"]);
    bench.run().await.unwrap();
    assert_eq!(bench.flow.panics.load(Ordering::Relaxed), 1);
    let (_, cause) = bench.verdicts().remove(0).1.retry.unwrap();
    assert!(cause.to_string().contains("panicked: on purpose"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_hangs_fails_after_the_timeout() {
    let mut bench = Bench::new(&[Step::Hang]);
    bench.send(&["a"]);
    let begun = Instant::now();
    bench.run().await.unwrap();
    assert!(begun.elapsed() >= TIMEOUT);
    let (_, cause) = bench.verdicts().remove(0).1.retry.unwrap();
    assert!(cause.to_string().contains("took longer than timeout_ms = 60000"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out_with_the_whole_batch() {
    let mut bench = Bench::new(&[Step::Unavailable, Step::Unavailable]);
    bench.send(&["a", "b"]);
    let worker = tokio::spawn(bench.worker().run());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.batches(), [["a", "b"], ["a", "b"], ["a", "b"]]);
    assert!(!bench.stage.outage.is_waiting());
    bench.stage.queue.close();
    worker.await.unwrap().unwrap();
    assert_eq!(bench.retried(), (vec![], 2));
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_an_outage() {
    let mut bench = Bench::new(&[Step::Unavailable]);
    bench.send(&["a", "b"]);
    let begun = Instant::now();
    bench.flow.draining.cancel();
    bench.run().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(bench.batches(), [["a", "b"]], "not one at a time as well");
    let verdicts = bench.verdicts();
    assert_eq!(verdicts.len(), 2);
    assert!(verdicts.iter().all(|(_, verdict)| verdict.retry.is_none() && verdict.handed_back.is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_begins_during_an_outage_ends_the_wait_at_once() {
    let mut bench = Bench::new(&[Step::Unavailable; 200]);
    bench.send(&["a"]);
    let worker = tokio::spawn(bench.worker().run());
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(bench.verdicts().is_empty(), "it waits for as long as the outage lasts");
    // Whoever sends to the stage may be blocked by it, so its queue is not closed yet.
    bench.flow.draining.cancel();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.roots.finished.len(), 1);
    bench.stage.queue.close();
    let begun = Instant::now();
    worker.await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let (_, verdict) = bench.verdicts().remove(0);
    assert!(verdict.retry.is_none() && verdict.handed_back.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_the_policy_allows_is_a_failure() {
    let mut bench = Bench::new(&[Step::Unavailable; 200]);
    Arc::get_mut(&mut bench.flow).unwrap().retry.outage_ms = 60_000;
    bench.send(&["a"]);
    let worker = tokio::spawn(bench.worker().run());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.retried(), (vec!["a".to_owned()], 1));
    bench.stage.queue.close();
    worker.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_cancelled_while_another_worker_probes_does_not_wait_for_the_end() {
    let mut bench = Bench::new(&[Step::Unavailable; 200]);
    bench.stage.queue.try_send(bench.roots.event("first", Lane::Interactive, "x")).unwrap();
    let probing = tokio::spawn(bench.worker().run());
    tokio::time::sleep(Duration::from_millis(1)).await;
    bench.stage.queue.try_send(bench.roots.request("a", Lane::Interactive, "x")).unwrap();
    let in_line = tokio::spawn(bench.worker().run());
    tokio::time::sleep(Duration::from_millis(1)).await;
    bench.roots.cancellations.cancel(token("a"));
    tokio::time::sleep(REVIEW).await;
    let (id, verdict) = bench.verdicts().remove(0);
    assert_eq!((id.as_str(), verdict.rejection.unwrap().1.code.as_ref()), ("a", "cancelled"));
    probing.abort();
    in_line.abort();
}

#[tokio::test(start_paused = true)]
async fn time_spent_blocked_downstream_is_no_time_of_the_operator() {
    let blocked = BlockedTime::default();
    let work = async {
        let waiting = blocked.begin();
        tokio::time::sleep(10 * TIMEOUT).await;
        drop(waiting);
        tokio::time::sleep(TIMEOUT / 2).await;
    };
    assert!(within(TIMEOUT, &blocked, work).await.is_some());
    let work = async {
        drop(blocked.begin());
        tokio::time::sleep(2 * TIMEOUT).await;
    };
    assert!(within(TIMEOUT, &blocked, work).await.is_none());
}

/// Answers for a body only after a while.
struct BodiesAway(MemoryTransport, Instant);

#[async_trait]
impl TransportWrapper for BodiesAway {
    fn within(&self) -> &dyn Transport {
        &self.0
    }

    async fn get_claim(&self, claim: &Claim) -> Result<Bytes, TransportError> {
        if self.1.elapsed() < TIMEOUT {
            Err(TransportError::unavailable("away"))
        } else {
            self.0.get_claim(claim).await
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_cannot_be_read_now_is_waited_for() {
    let mut bench = Bench::new(&[]);
    let transport = MemoryTransport::default();
    let body = stream::iter([Ok(Bytes::from_static(b"x"))]).boxed();
    let claim = transport.put_claim(BodyOwner::Result, body).await.unwrap();
    let mut event = bench.roots.event("a", Lane::Interactive, "x");
    event.payload = Payload::Bytes(Content { media_type: "text/plain".into(), body: Body::Claim(claim.into()) });
    bench.stage.queue.try_send(event).unwrap();
    bench.stage.queue.close();
    let away = Arc::new(BodiesAway(transport, Instant::now()));
    Worker { transport: away, ..bench.worker() }.run().await.unwrap();
    assert_eq!((bench.batches(), bench.retried()), (vec![vec!["a".to_owned()]], (vec![], 1)));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_cancelled_while_its_payload_is_out_of_reach_ends() {
    let mut bench = Bench::new(&[]);
    let transport = MemoryTransport::default();
    let body = stream::iter([Ok(Bytes::from_static(b"x"))]).boxed();
    let claim = transport.put_claim(BodyOwner::Result, body).await.unwrap();
    let mut event = bench.roots.request("a", Lane::Interactive, "x");
    event.payload = Payload::Bytes(Content { media_type: "text/plain".into(), body: Body::Claim(claim.into()) });
    bench.stage.queue.try_send(event).unwrap();
    bench.stage.queue.close();
    let away = Arc::new(BodiesAway(transport, Instant::now()));
    let worker = tokio::spawn(Worker { transport: away, ..bench.worker() }.run());
    tokio::time::sleep(Duration::from_millis(1)).await;
    bench.roots.cancellations.cancel(token("a"));
    worker.await.unwrap().unwrap();
    let (_, why) = bench.verdicts().remove(0).1.rejection.unwrap();
    assert_eq!(why.code, "cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_event_is_rejected_and_not_worked_on() {
    let mut bench = Bench::new(&[]);
    bench.roots.cancellations.cancel(token("a"));
    bench.stage.queue.try_send(bench.roots.request("a", Lane::Interactive, "x")).unwrap();
    bench.run().await.unwrap();
    assert!(bench.batches().is_empty());
    let (_, why) = bench.verdicts().remove(0).1.rejection.unwrap();
    assert_eq!(why.code, "cancelled");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_cancelled_during_an_outage_is_not_tried_again() {
    let mut bench = Bench::new(&[Step::Unavailable]);
    bench.stage.queue.try_send(bench.roots.request("a", Lane::Interactive, "x")).unwrap();
    let worker = tokio::spawn(bench.worker().run());
    tokio::time::sleep(Duration::from_millis(1)).await;
    bench.roots.cancellations.cancel(token("a"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.batches().len(), 1);
    assert!(bench.verdicts().remove(0).1.rejection.is_some());
    bench.stage.queue.close();
    worker.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_payload_is_rejected_and_its_neighbour_is_done() {
    let mut bench = Bench::new(&[]);
    let mut lost = bench.roots.event("lost", Lane::Interactive, "x");
    let claim = Claim { id: token("gone"), length: 1, sha256: Digest([0; 32]) };
    lost.payload = Payload::Bytes(Content { media_type: "text/plain".into(), body: Body::Claim(Arc::new(claim)) });
    bench.stage.queue.try_send(lost).unwrap();
    bench.send(&["b"]);
    bench.run().await.unwrap();
    assert_eq!(bench.batches(), [["b"]]);
    let lost = bench.verdicts().into_iter().find(|(id, _)| id == "lost").unwrap();
    assert_eq!(lost.1.rejection.unwrap().1.code, "payload_lost");
}

#[tokio::test(start_paused = true)]
async fn metrics_count_done_and_failed_events() {
    let bench = Bench::new(&[Step::Fail, Step::Succeed, Step::Fail]);
    bench.send(&["a", "b"]);
    bench.run().await.unwrap();
    let stats = bench.stage.stats();
    assert_eq!((stats.batches, stats.done, stats.failed, stats.in_flight), (1, 1, 1, 0));
}
