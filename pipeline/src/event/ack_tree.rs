//! The acknowledgement tree: a root counts the descendants of a delivered event and remembers how they ended.
//!
//! A root begins with one event in work. Emitting a child adds one, settling an event takes one away; at zero the root
//! goes to the settler, which alone talks to the broker. Nothing counts down by being dropped: an event that is lost in a
//! bug or a crash is never acknowledged, and is redelivered.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Cancellations;
use crate::envelope::Envelope;
use crate::fault::{BoxError, Rejection};
use crate::names::EventId;
use crate::payload::{Content, Payload};
use crate::trace::{StageTiming, TraceContext};
use crate::transport::{Acknowledge, Delivery};

/// One answer to the requester, by the event that gave it.
#[derive(Clone, Debug)]
pub struct Response {
    /// Sorts the answers of a split event in the order of its parts.
    pub order: u64,
    /// The event that answered: a repeated batch answers once.
    pub event: EventId,
    /// The answer.
    pub content: Content,
}

/// How the descendants of a root ended.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Answers, in order of arrival; at most one of each event.
    pub responses: Vec<Response>,
    /// The first rejection, with its stage.
    pub rejection: Option<(Arc<str>, Rejection)>,
    /// The first fault that a later attempt may not meet, with its stage.
    pub retry: Option<(Arc<str>, BoxError)>,
    /// Why it goes back to the broker without any fault, if it does.
    pub handed_back: Option<Arc<str>>,
}

/// The part of a root that the settler takes out, once.
pub struct Unsettled {
    /// How the descendants ended.
    pub verdict: Verdict,
    /// The broker's handle.
    pub ack: Box<dyn Acknowledge>,
    /// Freed when dropped.
    pub place: Place,
}

/// A place among the events in flight of a flow; freed when dropped.
#[derive(Default)]
pub struct Place {
    /// Among the bulk events; `None` for an interactive event.
    pub _bulk: Option<OwnedSemaphorePermit>,
    /// Among all events.
    pub _all: Option<OwnedSemaphorePermit>,
    /// Beside others, or alone.
    pub turn: Option<Turn>,
}

impl Place {
    /// Whether the event is a suspect, with no other event of the flow in flight.
    pub fn is_alone(&self) -> bool {
        matches!(self.turn, Some(Turn::Alone { .. }))
    }
}

/// Whether an event is worked on beside others.
pub enum Turn {
    /// Beside others.
    Shared { _guard: OwnedRwLockReadGuard<()> },
    /// With no other event of the flow in flight.
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

/// The root of an acknowledgement tree. Shared by the event that was delivered and all its descendants.
pub struct Root {
    /// As delivered, for dead letters and claims.
    pub envelope: Arc<Envelope>,
    /// As delivered.
    pub payload: Payload,
    /// When it was delivered.
    pub begun: Instant,
    /// Cancelled when the client cancels the request; `None` for an event without a request.
    pub cancellation: Option<CancellationToken>,
    /// The next ordinal of a result; 0 is `accepted`.
    pub next_ordinal: AtomicU32,
    /// Whether it ended in failure. Set by the settler, before it counts the end.
    pub failed: AtomicBool,
    /// Whether it is stored as a dead letter, which then owns its claims. Set by the settler, before it drops claims.
    pub dead: AtomicBool,
    /// Whether the flow's next part has taken over, and with it the answer.
    handed_on: AtomicBool,
    /// Events in work. Never 0 before the last one is settled, and never more than 0 again afterwards.
    pending: AtomicUsize,
    /// The time each stage took; `None` when no client waits and no trace is sampled.
    worked: Option<Mutex<Vec<StageTiming>>>,
    /// `None` once the settler has taken it.
    unsettled: Mutex<Option<Unsettled>>,
    settler: mpsc::Sender<Arc<Root>>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Root({})", self.envelope.id)
    }
}

/// Stages whose time is recorded: more than a flow has.
const MOST_STAGES: usize = 32;

/// Whether stage times are recorded: for a client that waits for an answer, or for a sampled trace.
fn is_timed(envelope: &Envelope) -> bool {
    let sampled = |text: &str| TraceContext::parse(text).is_some_and(|context| context.sampled);
    envelope.request.is_some() || envelope.traceparent.as_deref().is_some_and(sampled)
}

impl Root {
    /// A root with one event in work: the one that was delivered.
    pub fn new(
        delivery: Delivery,
        place: Place,
        settler: mpsc::Sender<Arc<Self>>,
        cancellations: &Cancellations,
    ) -> Arc<Self> {
        let envelope = Arc::new(delivery.envelope);
        let unsettled = Unsettled { verdict: Verdict::default(), ack: delivery.ack, place };
        Arc::new(Self {
            payload: delivery.payload,
            begun: Instant::now(),
            cancellation: envelope.request.as_ref().map(|request| cancellations.begin(request)),
            next_ordinal: AtomicU32::new(1),
            failed: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            handed_on: AtomicBool::new(false),
            pending: AtomicUsize::new(1),
            worked: is_timed(&envelope).then(Mutex::default),
            unsettled: Mutex::new(Some(unsettled)),
            settler,
            envelope,
        })
    }

    /// Adds one event in work. Only for who holds an event of the root that is in work itself, so that the count cannot
    /// have reached zero.
    pub fn add(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// Settles one event of the root; the last one sends the root to the settler.
    ///
    /// Acquire and release: the thread that brings the count to zero sees what the others wrote before they settled.
    pub fn finish(self: &Arc<Self>) {
        let before = self.pending.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "an event was settled twice");
        if before == 1 && self.settler.try_send(Arc::clone(self)).is_err() {
            // The settler is gone: the flow was stopped past its deadline. Unacknowledged, the event is redelivered.
            tracing::debug!(event = %self.envelope.id, "left unsettled");
        }
    }

    /// Records that a stage has worked on a descendant from `begun` until now.
    pub fn record_stage_time(&self, stage: &Arc<str>, begun: Instant) {
        let Some(worked) = &self.worked else { return };
        let ended = Instant::now();
        let mut worked = lock(worked);
        if let Some(known) = worked.iter_mut().find(|known| known.stage == *stage) {
            known.begun = known.begun.min(begun);
            known.ended = ended;
            known.events += 1;
        } else if worked.len() < MOST_STAGES {
            worked.push(StageTiming { stage: Arc::clone(stage), begun, ended, events: 1 });
        }
    }

    /// The time each stage took, in the order in which the stages first ended.
    pub fn stage_timings(&self) -> Vec<StageTiming> {
        self.worked.as_ref().map_or_else(Vec::new, |worked| lock(worked).clone())
    }

    /// Adds an answer; the second one of the same event is ignored.
    pub fn respond(&self, response: Response) {
        self.with_verdict(|verdict| {
            if !verdict.responses.iter().any(|known| known.event == response.event) {
                verdict.responses.push(response);
            }
        });
    }

    /// Rejects an event; the first rejection of a root stands.
    pub fn reject(&self, stage: &Arc<str>, rejection: Rejection) {
        self.with_verdict(|verdict| {
            verdict.rejection.get_or_insert_with(|| (Arc::clone(stage), rejection));
        });
    }

    /// Asks for another attempt of the whole root; the first cause stands.
    pub fn retry(&self, stage: &Arc<str>, error: BoxError) {
        self.with_verdict(|verdict| {
            verdict.retry.get_or_insert_with(|| (Arc::clone(stage), error));
        });
    }

    /// Hands the whole root back to the broker, which counts as no fault; the first reason stands.
    pub fn hand_back(&self, why: impl Into<Arc<str>>) {
        self.with_verdict(|verdict| {
            verdict.handed_back.get_or_insert_with(|| why.into());
        });
    }

    /// Leaves the answer to the flow's next part, in which a descendant is now an event of its own.
    pub fn hand_on(&self) {
        self.handed_on.store(true, Ordering::Relaxed);
    }

    /// Whether the flow's next part answers.
    pub fn is_handed_on(&self) -> bool {
        self.handed_on.load(Ordering::Relaxed)
    }

    /// Whether the request was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Whether an acknowledgement is all that is left to do: no client waits, nothing failed, no claim is stored.
    pub fn is_plain(&self) -> bool {
        let is_clean =
            |verdict: &Verdict| verdict.rejection.is_none() && verdict.retry.is_none() && verdict.handed_back.is_none();
        lock(&self.unsettled).as_ref().is_some_and(|unsettled| is_clean(&unsettled.verdict))
            && self.envelope.request.is_none()
            && self.payload.claims().is_empty()
    }

    /// Takes out the settler's part; `None` the second time.
    pub fn take_unsettled(&self) -> Option<Unsettled> {
        lock(&self.unsettled).take()
    }

    fn with_verdict(&self, change: impl FnOnce(&mut Verdict)) {
        if let Some(unsettled) = lock(&self.unsettled).as_mut() {
            change(&mut unsettled.verdict);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Lane;
    use crate::testing::units::Roots;

    fn response(event: &str, text: &str) -> Response {
        Response {
            order: 0,
            event: EventId::new(event).unwrap(),
            content: Content::inline("text/plain", text.to_owned()),
        }
    }

    #[test]
    fn a_root_goes_to_the_settler_with_its_last_event() {
        let mut roots = Roots::new();
        let event = roots.event("e", Lane::Bulk, "x");
        event.root.add();
        event.root.finish();
        assert!(roots.take_finished().is_empty());
        event.root.finish();
        assert_eq!(roots.take_finished(), ["e"]);
    }

    #[test]
    fn an_event_that_is_dropped_is_not_settled() {
        let mut roots = Roots::new();
        drop(roots.event("e", Lane::Bulk, "x"));
        assert!(roots.take_finished().is_empty());
    }

    #[test]
    fn the_first_rejection_stands() {
        let roots = Roots::new();
        let event = roots.event("e", Lane::Bulk, "x");
        for code in ["first", "second"] {
            event.root.reject(&"s".into(), Rejection::unusable(code, "detail"));
        }
        assert_eq!(event.root.take_unsettled().unwrap().verdict.rejection.unwrap().1.code, "first");
    }

    #[test]
    fn an_event_answers_once() {
        let roots = Roots::new();
        let event = roots.event("e", Lane::Bulk, "x");
        for (id, text) in [("a", "first"), ("a", "second"), ("b", "third")] {
            event.root.respond(response(id, text));
        }
        assert_eq!(event.root.take_unsettled().unwrap().verdict.responses.len(), 2);
    }

    #[test]
    fn the_settler_takes_its_part_once() {
        let roots = Roots::new();
        let event = roots.event("e", Lane::Bulk, "x");
        assert!(event.root.take_unsettled().is_some());
        assert!(event.root.take_unsettled().is_none());
    }

    #[test]
    fn only_an_event_with_nothing_left_to_do_is_plain() {
        let roots = Roots::new();
        assert!(roots.event("e", Lane::Bulk, "x").root.is_plain());
        assert!(!roots.request("e", Lane::Bulk, "x").root.is_plain());
        let failed = roots.event("e", Lane::Bulk, "x");
        failed.root.retry(&"s".into(), "not now".into());
        assert!(!failed.root.is_plain());
        let handed_back = roots.event("e", Lane::Bulk, "x");
        handed_back.root.hand_back("the flow stops");
        assert!(!handed_back.root.is_plain());
    }
}
