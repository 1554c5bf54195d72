//! The order of effects, and what each verdict leads to. The clock is paused: retries take no time.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::engine::in_flight_limit::InFlightLimit;
use crate::engine::suspects;
use crate::envelope::{Envelope, Lane};
use crate::event::Event;
use crate::registry::Services;
use crate::spec::RetrySpec;
use crate::testing::units::{Roots, envelope, flow_shared, token};
use crate::testing::{MemoryTransport, TransportWrapper};
use crate::transport::INLINE_LIMIT;

const RETRY: RetrySpec = RetrySpec { attempts: 2, backoff_ms: Vec::new(), outage_ms: 0, jitter: 0.0 };

struct Bench {
    transport: MemoryTransport,
    flow: Arc<FlowShared>,
    roots: Roots,
}

impl Bench {
    fn new() -> Self {
        let flow = FlowShared { retry: RETRY, ..flow_shared(&Services::default()) };
        Self { transport: MemoryTransport::with_flows([("test", 10)]), flow: Arc::new(flow), roots: Roots::new() }
    }

    /// Settles everything that was finished, to the end.
    async fn settle(&mut self) {
        let finished = self.roots.close();
        run(Arc::clone(&self.flow), Arc::new(self.transport.clone()), finished).await;
    }

    fn acks(&self) -> Vec<Settlement> {
        self.roots.acks.lock().unwrap().iter().map(|(_, settlement)| settlement.clone()).collect()
    }

    async fn outcomes(&self, id: &str) -> Vec<OutcomeKind> {
        self.transport.outcomes(&token(id)).await.unwrap().iter().map(|outcome| outcome.kind).collect()
    }

    fn ledger(&self, id: &str) -> Option<End> {
        self.flow.ledger.look_up(&token("test"), &token(id))
    }
}

/// Settles the only event of a root, and lets go of it: the settler ends when no root can come any more.
fn finish(event: Event) {
    event.root.finish();
}

fn answer(event: &Event, order: u64, text: &str) -> Response {
    Response { order, event: event.id.child("s", u32::try_from(order).unwrap()), content: json(text) }
}

fn json(text: &str) -> Content {
    Content::inline("application/json", text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_plain_event_is_recorded_and_acknowledged() {
    let mut bench = Bench::new();
    finish(bench.roots.event("e", Lane::Bulk, "x"));
    bench.settle().await;
    assert_eq!((bench.acks(), bench.ledger("e")), (vec![Settlement::Done], Some(End::Settled)));
}

#[tokio::test(start_paused = true)]
async fn a_request_gets_its_answer_before_it_is_acknowledged() {
    let mut bench = Bench::new();
    let event = bench.roots.request("e", Lane::Interactive, "x");
    event.root.respond(answer(&event, 0, "42"));
    finish(event);
    bench.settle().await;
    assert_eq!((bench.outcomes("e").await, bench.acks()), (vec![OutcomeKind::Done], vec![Settlement::Done]));
}

/// Settles what was finished while the broker refuses everything for 75 s, and looks at the bench just before the end.
async fn settle_through_outage(bench: &mut Bench, look: impl FnOnce(&Bench)) {
    bench.transport.set_down(true);
    let finished = bench.roots.close();
    let settling = run(Arc::clone(&bench.flow), Arc::new(bench.transport.clone()), finished);
    tokio::join!(settling, async {
        tokio::time::sleep(Duration::from_secs(75)).await;
        look(bench);
        bench.transport.set_down(false);
    });
    assert_eq!(bench.flow.storage.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_root_whose_result_cannot_be_stored_waits_until_it_can() {
    let mut bench = Bench::new();
    let event = bench.roots.request("e", Lane::Interactive, "x");
    event.root.respond(answer(&event, 0, "42"));
    finish(event);
    settle_through_outage(&mut bench, |bench| {
        assert_eq!((bench.acks(), bench.flow.storage.waiting()), (vec![], 1));
    })
    .await;
    assert_eq!((bench.outcomes("e").await, bench.acks()), (vec![OutcomeKind::Done], vec![Settlement::Done]));
    assert_eq!((bench.ledger("e"), bench.flow.metrics.refused.load(Ordering::Relaxed)), (Some(End::Settled), 0));
}

#[tokio::test(start_paused = true)]
async fn roots_whose_ends_cannot_be_recorded_wait_until_they_can() {
    let mut bench = Bench::new();
    for id in ["a", "b", "c"] {
        finish(bench.roots.event(id, Lane::Bulk, "x"));
    }
    settle_through_outage(&mut bench, |bench| {
        assert_eq!((bench.acks(), bench.flow.storage.waiting()), (vec![], 3));
    })
    .await;
    assert_eq!((bench.acks(), bench.ledger("b")), (vec![Settlement::Done; 3], Some(End::Settled)));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_stored_waits_until_it_can() {
    let mut bench = Bench::new();
    let event = bench.roots.request("e", Lane::Interactive, "x");
    event.root.reject(&"s".into(), Rejection::internal("it broke"));
    finish(event);
    settle_through_outage(&mut bench, |_| {}).await;
    assert_eq!((bench.outcomes("e").await, bench.acks()), (vec![OutcomeKind::Failed], vec![Settlement::Done]));
    assert_eq!((bench.transport.letters().len(), bench.ledger("e")), (1, Some(End::DeadLettered)));
}

/// Stores the first result, and says that it did not.
#[derive(Default)]
struct Unconfirmed {
    within: MemoryTransport,
    published: AtomicUsize,
}

#[async_trait]
impl TransportWrapper for Unconfirmed {
    fn within(&self) -> &dyn Transport {
        &self.within
    }

    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck, TransportError> {
        let published = self.within.publish_outcome(request, outcome).await?;
        match self.published.fetch_add(1, Ordering::Relaxed) {
            0 => Err(TransportError::unavailable("no answer came")),
            _ => Ok(published),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_whose_confirmation_was_lost_keeps_its_body() {
    let (mut bench, transport) = (Bench::new(), Arc::new(Unconfirmed::default()));
    let event = bench.roots.request("e", Lane::Interactive, "x");
    event.root.respond(answer(&event, 0, &"long".repeat(INLINE_LIMIT)));
    finish(event);
    run(Arc::clone(&bench.flow), Arc::clone(&transport) as Arc<dyn Transport>, bench.roots.close()).await;
    assert_eq!(transport.published.load(Ordering::Relaxed), 2);
    assert_eq!((bench.acks(), transport.within.claim_count()), (vec![Settlement::Done], 1));
    assert_eq!(bench.flow.metrics.refused.load(Ordering::Relaxed), 0);
}

/// Refuses every success for good.
struct NoSuccess(MemoryTransport);

#[async_trait]
impl TransportWrapper for NoSuccess {
    fn within(&self) -> &dyn Transport {
        &self.0
    }

    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck, TransportError> {
        if outcome.kind == OutcomeKind::Done {
            return Err(TransportError::Body("the message is larger than its stream accepts".into()));
        }
        self.0.publish_outcome(request, outcome).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_can_never_be_stored_fails_after_all_attempts() {
    let mut bench = Bench::new();
    for round in 1..=RETRY.attempts {
        finish(bench.roots.request("e", Lane::Interactive, "x"));
        let transport = Arc::new(NoSuccess(bench.transport.clone()));
        let finished = bench.roots.close();
        run(Arc::clone(&bench.flow), transport, finished).await;
        let acks = bench.acks();
        assert_eq!(matches!(acks[0], Settlement::Done), round == RETRY.attempts, "{acks:?}");
        bench.roots = Roots::new();
    }
    let letters = bench.transport.letters();
    assert_eq!((letters.len(), letters[0].faults, &*letters[0].cause.code), (1, 2, "result_refused"));
    assert_eq!(bench.outcomes("e").await, [OutcomeKind::Failed]);
}

#[tokio::test(start_paused = true)]
async fn a_root_that_is_handed_back_has_no_fault() {
    let mut bench = Bench::new();
    let event = bench.roots.request("e", Lane::Interactive, "x");
    event.root.hand_back("the flow stops");
    finish(event);
    bench.settle().await;
    assert!(matches!(&bench.acks()[..], [Settlement::Retry(_, why)] if &**why == "the flow stops"));
    assert_eq!(bench.flow.faults.add(&token("e")), 1, "the first");
}

#[tokio::test(start_paused = true)]
async fn the_note_about_a_suspect_is_withdrawn_when_it_is_settled() {
    let mut bench = Bench::new();
    let turn = InFlightLimit::new(1).alone().await;
    suspects::begin(&bench.transport, &bench.flow.incarnation, &token("e")).await.unwrap();
    bench.flow.begin_suspect(&token("e"));
    let event = bench.roots.begin_in(Place { turn: Some(turn), ..Place::default() }, envelope("e", Lane::Bulk), "x");
    finish(event);
    bench.settle().await;
    let note = bench.transport.get_record(&token("caudal-suspects"), &token("e")).await.unwrap().unwrap();
    assert_eq!((bench.acks(), note.value.len()), (vec![Settlement::Done], 0));
}

#[tokio::test(start_paused = true)]
async fn a_fault_is_retried_while_attempts_are_left() {
    let mut bench = Bench::new();
    let event = bench.roots.request("e", Lane::Interactive, "x");
    event.root.retry(&"s".into(), "not now".into());
    finish(event);
    bench.settle().await;
    assert!(matches!(&bench.acks()[..], [Settlement::Retry(_, why)] if &**why == "stage s failed"));
    assert!(bench.outcomes("e").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_last_fault_is_dead_lettered_and_fails_the_request() {
    let mut bench = Bench::new();
    bench.flow.faults.add(&token("e"));
    let event = bench.roots.request("e", Lane::Interactive, "x");
    event.root.retry(&"s".into(), "never".into());
    finish(event);
    bench.settle().await;
    let letters = bench.transport.letters();
    assert_eq!((letters.len(), letters[0].faults, letters[0].error.as_deref()), (1, 2, Some("never")));
    assert_eq!((bench.outcomes("e").await, bench.acks()), (vec![OutcomeKind::Failed], vec![Settlement::Done]));
    assert_eq!(bench.ledger("e"), Some(End::DeadLettered));
}

#[tokio::test(start_paused = true)]
async fn an_expired_event_is_not_retried() {
    let mut bench = Bench::new();
    let late = Envelope { deadline: Some(OffsetDateTime::UNIX_EPOCH), ..envelope("e", Lane::Bulk) };
    let event = bench.roots.begin(late, "x");
    event.root.retry(&"s".into(), "not now".into());
    finish(event);
    bench.settle().await;
    assert_eq!((bench.transport.letters().len(), bench.acks()), (1, vec![Settlement::Done]));
}

/// What becomes of an event that was rejected with a status: dead letters, and the outcomes of its request.
async fn rejected(status: u16, with_request: bool) -> (usize, Vec<OutcomeKind>) {
    let mut bench = Bench::new();
    let event = match with_request {
        true => bench.roots.request("e", Lane::Interactive, "x"),
        false => bench.roots.event("e", Lane::Interactive, "x"),
    };
    event.root.reject(&"s".into(), Rejection::new(status, "code", "detail"));
    finish(event);
    bench.settle().await;
    (bench.transport.letters().len(), bench.outcomes("e").await)
}

#[tokio::test(start_paused = true)]
async fn a_mistake_of_the_client_fails_the_request_without_a_dead_letter() {
    assert_eq!(rejected(422, true).await, (0, vec![OutcomeKind::Failed]));
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_ours_fails_the_request_with_a_dead_letter() {
    assert_eq!(rejected(500, true).await, (1, vec![OutcomeKind::Failed]));
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_request_is_dead_lettered_whatever_the_cause() {
    assert_eq!(rejected(422, false).await, (1, vec![]));
}

/// A flow without `respond`, as of reports: the client has its answer before the work begins.
fn not_awaited() -> Bench {
    let flow = FlowShared { retry: RETRY, is_awaited: false, ..flow_shared(&Services::default()) };
    Bench { flow: Arc::new(flow), ..Bench::new() }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_no_requester_waits_for_is_dead_lettered_whatever_the_cause() {
    for status in [415, 422, 503, 504] {
        let mut bench = not_awaited();
        let event = bench.roots.request("e", Lane::Interactive, "x");
        event.root.reject(&"s".into(), Rejection::new(status, "code", "detail"));
        finish(event);
        bench.settle().await;
        assert_eq!(bench.transport.letters().len(), 1, "{status}");
        assert_eq!(bench.outcomes("e").await, [OutcomeKind::Failed], "{status}");
        assert_eq!(bench.ledger("e"), Some(End::DeadLettered));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_is_not_dead_lettered() {
    let mut bench = not_awaited();
    let event = bench.roots.request("e", Lane::Interactive, "x");
    event.root.cancellation.as_ref().unwrap().cancel();
    event.root.reject(&"s".into(), event.obsolete().unwrap());
    finish(event);
    bench.settle().await;
    assert!(bench.transport.letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_an_event_that_was_done_elsewhere_is_not_dead_lettered() {
    let mut bench = Bench::new();
    bench.flow.ledger.note(OffsetDateTime::now_utc(), &[Entry::new(&token("test"), &token("e"), End::Settled)]);
    let event = bench.roots.event("e", Lane::Bulk, "x");
    event.root.reject(&"s".into(), Rejection::internal("the body is gone"));
    finish(event);
    bench.settle().await;
    assert!(bench.transport.letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_root_that_was_handed_on_publishes_no_result() {
    let mut bench = Bench::new();
    let event = bench.roots.request("e", Lane::Interactive, "x");
    event.root.hand_on();
    finish(event);
    bench.settle().await;
    assert_eq!((bench.outcomes("e").await, bench.acks()), (vec![], vec![Settlement::Done]));
}

#[tokio::test(start_paused = true)]
async fn a_second_result_is_refused_and_counted() {
    let mut bench = Bench::new();
    let first = Outcome::new(OutcomeKind::Cancelled, 1, token("test"), json("{}"));
    bench.transport.publish_outcome(&token("e"), &first).await.unwrap();
    finish(bench.roots.request("e", Lane::Interactive, "x"));
    bench.settle().await;
    assert_eq!(bench.flow.metrics.refused.load(Ordering::Relaxed), 1);
    assert_eq!((bench.outcomes("e").await, bench.acks()), (vec![OutcomeKind::Cancelled], vec![Settlement::Done]));
}

/// Counts the entries of each message.
#[derive(Default)]
struct Messages {
    within: MemoryTransport,
    sizes: Mutex<Vec<usize>>,
}

#[async_trait]
impl TransportWrapper for Messages {
    fn within(&self) -> &dyn Transport {
        &self.within
    }

    async fn note_ended(&self, entries: &[Entry]) -> Result<(), TransportError> {
        self.sizes.lock().unwrap().push(entries.len());
        self.within.note_ended(entries).await
    }
}

/// The sizes of the messages when so many roots finish at once, and 1 ms later two more, one after the other.
async fn message_sizes(at_once: usize) -> Vec<usize> {
    let (mut bench, transport) = (Bench::new(), Arc::new(Messages::default()));
    let later = ["later1", "later2"].map(|id| bench.roots.event(id, Lane::Bulk, "x"));
    for n in 0..at_once {
        finish(bench.roots.event(&format!("e{n}"), Lane::Bulk, "x"));
    }
    let settling = run(Arc::clone(&bench.flow), Arc::clone(&transport) as Arc<dyn Transport>, bench.roots.close());
    tokio::join!(settling, async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        for event in later {
            finish(event);
            // The settler works on it before the next one comes.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        }
    });
    let sizes = transport.sizes.lock().unwrap();
    sizes.clone()
}

#[tokio::test(start_paused = true)]
async fn under_load_entries_wait_to_share_a_message() {
    assert_eq!(message_sizes(UNDER_LOAD).await, [UNDER_LOAD, 2]);
}

#[tokio::test(start_paused = true)]
async fn without_load_an_entry_waits_for_none() {
    assert_eq!(message_sizes(UNDER_LOAD - 1).await, [UNDER_LOAD - 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn several_files_are_answered_as_one_archive() {
    let mut bench = Bench::new();
    let event = bench.roots.request("e", Lane::Interactive, "x");
    for order in 0..2 {
        let content = Content::inline("image/png", vec![1; INLINE_LIMIT]);
        event.root.respond(Response { content, ..answer(&event, order, "") });
    }
    finish(event);
    bench.settle().await;
    let outcomes = bench.transport.outcomes(&token("e")).await.unwrap();
    let content = &outcomes[0].content;
    assert_eq!((&*content.media_type, content.claim().is_some()), ("application/zip", true));
    assert!(content.length() > 2 * INLINE_LIMIT as u64);
}
