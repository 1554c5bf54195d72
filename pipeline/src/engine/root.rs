//! The root of a delivered event: counts its descendants and remembers how they ended.
//!
//! A root begins with one event in work. Emitting a child adds one, settling an event takes one away; at zero the root
//! goes to the settler, which alone talks to the broker. Nothing counts down by being dropped: an event that is lost in a
//! bug or a crash is never acknowledged, and comes again.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Cancellations;
use crate::event::{Envelope, Event};
use crate::fault::{BoxError, Rejection};
use crate::names::EventId;
use crate::payload::{Content, Payload};
use crate::trace::{TraceContext, Worked};
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
    /// Answers, in order of arrival.
    pub responses: Vec<Response>,
    /// The first rejection, with its stage.
    pub rejection: Option<(Arc<str>, Rejection)>,
    /// The first fault that a later attempt may not meet, with its stage.
    pub retry: Option<(Arc<str>, BoxError)>,
}

/// What the settler needs of a root, taken out once.
pub struct Settling {
    /// How it went.
    pub verdict: Verdict,
    /// The broker's handle.
    pub ack: Box<dyn Acknowledge>,
    /// Freed when dropped.
    pub place: Place,
}

/// A place in a flow; free again when dropped.
#[derive(Default)]
pub struct Place {
    /// Among those of bulk events.
    pub _bulk: Option<OwnedSemaphorePermit>,
    /// Among all.
    pub _all: Option<OwnedSemaphorePermit>,
    /// Beside others, or alone.
    pub _turn: Option<Turn>,
}

/// Whether an event is worked on beside others.
pub enum Turn {
    /// Beside others.
    Shared { _guard: OwnedRwLockReadGuard<()> },
    /// With nothing else begun in the flow.
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

/// See the module.
pub struct Root {
    /// As delivered, for dead letters and claims.
    pub envelope: Arc<Envelope>,
    /// As delivered.
    pub payload: Payload,
    /// When it was delivered.
    pub begun: Instant,
    /// Cancelled when the requester gives it up; `None` where nobody asked.
    pub cancellation: Option<CancellationToken>,
    /// The next ordinal of a result; 0 is `accepted`.
    pub next_ordinal: AtomicU32,
    /// Whether it ended in failure.
    pub failed: AtomicBool,
    /// Whether it is kept as a dead letter, and its claims with it.
    pub dead: AtomicBool,
    /// Whether the flow's next part has taken over, and with it the answer.
    pub handed_on: AtomicBool,
    pending: AtomicUsize,
    /// What each stage did; `None` where nobody would ask.
    worked: Option<Mutex<Vec<Worked>>>,
    settling: Mutex<Option<Settling>>,
    settler: mpsc::Sender<Arc<Root>>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Root({})", self.envelope.id)
    }
}

/// Stages whose work is noted: more than a flow has.
const MOST_STAGES: usize = 32;

/// Whether somebody may ask where the time went: who waits for an answer, or follows the trace.
fn is_timed(envelope: &Envelope) -> bool {
    let sampled = |text: &str| TraceContext::parse(text).is_some_and(|context| context.sampled);
    envelope.request.is_some() || envelope.traceparent.as_deref().is_some_and(sampled)
}

impl Root {
    /// A root with one event in work, and that event.
    ///
    /// `settler` must have room for every root that can exist at once; the places see to that.
    pub fn begin(
        delivery: Delivery,
        place: Place,
        settler: mpsc::Sender<Arc<Self>>,
        cancellations: &Cancellations,
    ) -> Event {
        let envelope = Arc::new(delivery.envelope);
        let settling = Settling { verdict: Verdict::default(), ack: delivery.ack, place };
        let root = Arc::new(Self {
            envelope: Arc::clone(&envelope),
            payload: delivery.payload.clone(),
            begun: Instant::now(),
            cancellation: envelope.request.as_ref().map(|request| cancellations.begin(request)),
            next_ordinal: AtomicU32::new(1),
            failed: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            handed_on: AtomicBool::new(false),
            pending: AtomicUsize::new(1),
            worked: is_timed(&envelope).then(Mutex::default),
            settling: Mutex::new(Some(settling)),
            settler,
        });
        Event { id: envelope.id.clone(), envelope, payload: delivery.payload, order: 0, root }
    }

    /// One more event in work.
    pub fn add(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// One event of the root is settled; the last one sends the root to the settler.
    pub fn finish(self: &Arc<Self>) {
        let before = self.pending.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "an event was settled twice");
        if before == 1 && self.settler.try_send(Arc::clone(self)).is_err() {
            // The settler is gone: the flow was stopped past its deadline. Unacknowledged, the event comes again.
            tracing::debug!(event = %self.envelope.id, "left unsettled");
        }
    }

    /// Notes that a stage has worked on a descendant from then until now.
    pub fn note_worked(&self, stage: &Arc<str>, begun: Instant) {
        let Some(worked) = &self.worked else { return };
        let ended = Instant::now();
        let mut worked = worked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = worked.iter_mut().find(|known| known.stage == *stage) {
            known.begun = known.begun.min(begun);
            known.ended = ended;
            known.events += 1;
        } else if worked.len() < MOST_STAGES {
            worked.push(Worked { stage: Arc::clone(stage), begun, ended, events: 1 });
        }
    }

    /// What each stage did, in the order in which they were done first.
    pub fn worked(&self) -> Vec<Worked> {
        let worked = self.worked.as_ref();
        worked.map_or_else(Vec::new, |worked| worked.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Notes an answer.
    pub fn respond(&self, response: Response) {
        self.with_verdict(|verdict| {
            if !verdict.responses.iter().any(|known| known.event == response.event) {
                verdict.responses.push(response);
            }
        });
    }

    /// Notes that an event cannot be done; the first rejection stands.
    pub fn reject(&self, stage: &Arc<str>, rejection: Rejection) {
        self.with_verdict(|verdict| {
            verdict.rejection.get_or_insert_with(|| (Arc::clone(stage), rejection));
        });
    }

    /// Notes that the root should come again.
    pub fn retry(&self, stage: &Arc<str>, error: BoxError) {
        self.with_verdict(|verdict| {
            verdict.retry.get_or_insert_with(|| (Arc::clone(stage), error));
        });
    }

    /// Whether all that is left to do is to tell the broker: nobody waits, nothing went wrong, nothing is stored aside.
    pub fn is_plain(&self) -> bool {
        let settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let clean = settling
            .as_ref()
            .is_some_and(|settling| settling.verdict.rejection.is_none() && settling.verdict.retry.is_none());
        clean && self.envelope.request.is_none() && self.payload.claims().is_empty()
    }

    /// Takes out what the settler needs; `None` the second time.
    pub fn take_settling(&self) -> Option<Settling> {
        self.settling.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn with_verdict(&self, change: impl FnOnce(&mut Verdict)) {
        if let Some(settling) = self.settling.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            change(&mut settling.verdict);
        }
    }
}
