//! The event: one item that flows through the stages of a flow.
//!
//! An event and its descendants share one [`Envelope`] and one [`Root`], so that a child costs an id and a payload.

mod ack_tree;
mod cancellations;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::fault::Rejection;
use crate::names::EventId;
use crate::payload::Payload;
use crate::transport::Delivery;

pub(crate) use ack_tree::{Place, Response, Root, Turn, Unsettled, Verdict};
pub use cancellations::Cancellations;

use crate::envelope::Envelope;

/// Children of one event whose order among each other is kept.
const ORDER_BASE: u64 = 1 << 16;

/// One item travelling through a flow. Cloning shares everything.
#[derive(Clone, Debug)]
pub struct Event {
    /// The same on every redelivery; sinks upsert by it.
    pub id: EventId,
    /// Shared with every descendant of the same root.
    pub envelope: Arc<Envelope>,
    /// The data.
    pub payload: Payload,
    /// Sorts the answers of a split event in the order of its parts; 0 for the root.
    pub(crate) order: u64,
    /// Counts the descendants in work. Only the engine touches it.
    pub(crate) root: Arc<Root>,
}

impl Event {
    /// Makes the event of a delivery, with a new acknowledgement tree that has this one event in work.
    ///
    /// `settler` must have room for every root that can exist at once; the places see to that.
    pub(crate) fn begin(
        delivery: Delivery,
        place: Place,
        settler: mpsc::Sender<Arc<Root>>,
        cancellations: &Cancellations,
    ) -> Self {
        let payload = delivery.payload.clone();
        let root = Root::new(delivery, place, settler, cancellations);
        Self { id: root.envelope.id.clone(), envelope: Arc::clone(&root.envelope), payload, order: 0, root }
    }

    /// The id of what this event becomes elsewhere, for example in another flow: always the same, and never its own, so
    /// that two flows do not answer one request.
    #[must_use]
    pub fn child_id(&self, stage: &str) -> EventId {
        self.id.child(stage, 0)
    }

    /// Whether the request was cancelled. The engine checks before each stage; an operator checks between costly steps.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.root.is_cancelled()
    }

    /// Resolves when the request is cancelled; never for an event without a request. For operators that can stop midway.
    pub async fn cancelled(&self) {
        match &self.root.cancellation {
            Some(token) => token.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// The rejection of an event that is cancelled or past its deadline; `None` while it is worth working on.
    pub(crate) fn obsolete(&self) -> Option<Rejection> {
        if self.is_cancelled() {
            return Some(Rejection::new(409, "cancelled", "the request was cancelled before it was done"));
        }
        let late = || Rejection::new(504, "deadline_passed", "the deadline passed before the work began");
        self.envelope.expired().then(late)
    }

    /// The `ordinal`-th event that `stage` makes of this one.
    pub(crate) fn child(&self, stage: &str, ordinal: u32, payload: Payload) -> Self {
        Self {
            id: self.id.child(stage, ordinal),
            envelope: Arc::clone(&self.envelope),
            payload,
            order: self.order.wrapping_mul(ORDER_BASE).wrapping_add(u64::from(ordinal)),
            root: Arc::clone(&self.root),
        }
    }
}
