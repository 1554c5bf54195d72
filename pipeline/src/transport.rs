//! What the engine and the gateway need from a broker, as a trait.
//!
//! Two implementations: JetStream (crate `nats`) and memory ([`crate::testing`]). The documentation of each method is the
//! contract of both.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use crate::event::{Envelope, Lane};
use crate::fault::{BoxError, Rejection};
use crate::ledger::{Entry, News};
use crate::names::{FlowName, RequestId, Token};
use crate::outcome::Outcome;
use crate::payload::{Claim, Payload};

/// A body at most this long travels inside its event; a longer one becomes a claim.
pub const INLINE_LIMIT: usize = 256 << 10;

/// Why a call to the broker failed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The flow's backlog is full; nothing was stored.
    #[error("the queue of flow {flow} is full")]
    Full {
        /// Which flow.
        flow: FlowName,
    },
    /// No such flow is declared.
    #[error("no flow {0}")]
    NoFlow(FlowName),
    /// The object of a claim is gone or was altered.
    #[error("claim {id} cannot be read: {why}")]
    Claim {
        /// Which object.
        id: Token,
        /// Expired, cut short, or altered.
        why: &'static str,
    },
    /// The body's stream broke or exceeded its limit; what was stored of it is removed.
    #[error("body could not be read")]
    Body(#[source] BoxError),
    /// The broker is out of reach, out of space, or did not answer in time. It may have stored the message all the same.
    #[error("broker unavailable")]
    Unavailable(#[source] BoxError),
}

impl TransportError {
    /// Wraps a client library's error.
    pub fn unavailable(error: impl Into<BoxError>) -> Self {
        Self::Unavailable(error.into())
    }
}

/// An event to be stored. Its payload is bytes, parts or JSON.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Attributes; `attempt` is ignored.
    pub envelope: Envelope,
    /// Inline or claimed content.
    pub payload: Payload,
}

/// Whether a submission was the first of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is in the queue now, or an earlier attempt of the same submission put it there.
    Stored,
    /// The broker has seen this id before: no event refers to the bodies of this one.
    Known,
}

/// Bounds of the events that a source has delivered and that are not yet settled.
#[derive(Clone, Copy, Debug)]
pub struct SourceBounds {
    /// Number of events.
    pub events: usize,
    /// Bytes of their messages; one event is always delivered, however large.
    pub bytes: usize,
    /// Whether events with the same key keep their order: the transport then delivers one unsettled event of a key at a time.
    pub ordered: bool,
    /// How long the broker waits for an acknowledgement before it redelivers an event. The transport itself sends "in
    /// progress" for as long as the [`Delivery`] exists.
    pub ack_wait: Duration,
    /// Deliveries after which the transport stops delivering: a safety limit below which the engine counts by itself.
    pub max_deliver: u32,
}

/// How a delivered event is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Every effect is confirmed: remove it from the queue.
    Done,
    /// The same, and wait until the broker has confirmed, for callers that must be sure that it is not redelivered.
    DoneForSure,
    /// Redeliver it after this time, and the reason: a short text without line breaks, shown in the broker's advisories.
    Retry(Duration, Arc<str>),
}

/// The broker's handle on one delivered event. If it is dropped unsettled, the event is redelivered.
#[async_trait]
pub trait Acknowledge: Send + Sync {
    /// Sends the acknowledgement; if it is lost, the event is redelivered. Returns whether the broker has confirmed, which
    /// only [`Settlement::DoneForSure`] waits for.
    async fn settle(self: Box<Self>, settlement: Settlement) -> bool;
}

/// One delivered event.
pub struct Delivery {
    /// Attributes; `attempt` counts deliveries from 1.
    pub envelope: Envelope,
    /// As submitted.
    pub payload: Payload,
    /// The handle.
    pub ack: Box<dyn Acknowledge>,
}

/// A pull of one lane of one flow.
#[async_trait]
pub trait Source: Send {
    /// The next event, or `None` when the source is closed for good. Cancel-safe: dropping the future loses nothing.
    ///
    /// While the broker is out of reach it waits.
    async fn next(&mut self) -> Option<Delivery>;
}

/// Whether a terminal result was the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Stored.
    Stored,
    /// Refused: the request already has its terminal, or this ordinal is taken.
    Refused,
}

/// An event that ended in failure, stored so that a person can look at it, retry it or drop it.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// As it was delivered.
    pub envelope: Envelope,
    /// As it was delivered; the bodies it refers to stay in the store.
    pub payload: Payload,
    /// The stage that failed.
    pub stage: Arc<str>,
    /// How often it failed; 0 if no attempt ran to its end.
    pub faults: u32,
    /// The rejection that the requester got.
    pub cause: Rejection,
    /// The last error with its causes, for the operator of the service; never shown to the requester.
    pub error: Option<Arc<str>>,
}

/// A stored dead letter with its id.
#[derive(Clone, Debug)]
pub struct KeptLetter {
    /// Identifies it; later letters have higher ids.
    pub id: u64,
    /// The dead letter. `envelope.attempt` is the number of its last delivery.
    pub letter: DeadLetter,
}

/// Backlog of one flow in the broker, including events that are delivered and not acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Events in the interactive lane.
    pub interactive: u64,
    /// Events in the bulk lane.
    pub bulk: u64,
    /// Events of both lanes that ever left the queue; a counter.
    pub ended: u64,
}

impl Backlog {
    /// Whether both lanes are empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.interactive == 0 && self.bulk == 0
    }

    /// Events of one lane.
    #[must_use]
    pub fn of(&self, lane: Lane) -> u64 {
        match lane {
            Lane::Interactive => self.interactive,
            Lane::Bulk => self.bulk,
        }
    }
}

/// The current value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// As written.
    pub value: Bytes,
    /// Grows with every write of the store.
    pub revision: u64,
}

/// What a stored body belongs to, which decides how long it is stored.
#[derive(Clone, Copy, Debug)]
pub enum BodyOf<'a> {
    /// An event of this flow. It is removed when the event has ended, with its dead letter if it has one; and after a while
    /// if no event refers to it.
    Event(&'a FlowName),
    /// A result. It is removed when results expire.
    Result,
    /// A template. It is stored until it is dropped.
    Template,
}

/// Live results of one request, from the call of [`Transport::watch`] on.
///
/// It ends (`recv` gives `None`) when the watcher fell behind by more than the channel's bound: read the history again.
pub struct Watch {
    /// Results in stored order. Each is shared by all watches, because a channel allocates its slots in advance (about
    /// thirty) and most watches are idle.
    pub outcomes: mpsc::Receiver<Arc<Outcome>>,
    /// Deregisters the watch when dropped.
    pub guard: Box<dyn Send + Sync>,
}

/// A broker: queues, results, dead letters, bodies and records.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Stores an event. Once this returns `Ok`, the event survives a crash of every process. A repeat with the same id
    /// within the broker's deduplication window is stored once.
    async fn submit(&self, submission: Submission) -> Result<Submitted, TransportError>;

    /// Opens the pull of a lane.
    async fn source(
        &self,
        flow: &FlowName,
        lane: Lane,
        bounds: SourceBounds,
    ) -> Result<Box<dyn Source>, TransportError>;

    /// Stores a result. The first terminal wins; everything after it is refused.
    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<Published, TransportError>;

    /// All results stored for a request so far, in order; empty if the id was never accepted or its results have expired.
    async fn outcomes(&self, request: &RequestId) -> Result<Vec<Outcome>, TransportError>;

    /// Requests that are cancelled from now on, in whichever process. Best effort: a message may be lost. Ends when the
    /// connection does.
    async fn cancellations(&self) -> Result<mpsc::Receiver<RequestId>, TransportError>;

    /// Events of a flow as they are submitted from now on, by whichever process, including those that the broker then
    /// refuses or already has. Best effort: a reader that is too slow loses events. Ends when the connection does.
    async fn tail(&self, flow: &FlowName) -> Result<mpsc::Receiver<Submission>, TransportError>;

    /// Watches for results that are stored from now on. Watch first, then submit or read the history; a result that appears
    /// in both has the same ordinal.
    fn watch(&self, request: &RequestId) -> Watch;

    /// Stores a body as it streams in, and computes its digest on the way. If the stream ends in an error, all of it is
    /// removed and none of it was ever visible.
    async fn put_claim(
        &self,
        of: BodyOf<'_>,
        body: BoxStream<'_, Result<Bytes, BoxError>>,
    ) -> Result<Claim, TransportError>;

    /// Reads a whole body and compares its length and digest with the claim.
    async fn get_claim(&self, claim: &Claim) -> Result<Bytes, TransportError>;

    /// Removes a body; no error if it is gone.
    async fn drop_claim(&self, claim: &Claim) -> Result<(), TransportError>;

    /// Stores an event that failed.
    async fn dead_letter(&self, letter: DeadLetter) -> Result<(), TransportError>;

    /// Up to `limit` dead letters from id `from` on, oldest first, of one flow or of all.
    async fn dead_letters(
        &self,
        flow: Option<&FlowName>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<KeptLetter>, TransportError>;

    /// Removes a dead letter, but not the bodies it refers to; no error if it is gone.
    async fn remove_dead_letter(&self, id: u64) -> Result<(), TransportError>;

    /// Stores that events have ended, so that a later copy of one is recognised. Confirmed when it returns.
    async fn note_ended(&self, entries: &[Entry]) -> Result<(), TransportError>;

    /// The ended events: all that are stored, then [`News::CaughtUp`], then those that any process stores. While the broker
    /// is out of reach it waits; entries may come twice.
    async fn ended(&self) -> Result<mpsc::Receiver<News>, TransportError>;

    /// Writes a record of a named store, replacing its value; returns the new revision.
    async fn put_record(&self, store: &Token, key: &Token, value: Bytes) -> Result<u64, TransportError>;

    /// Writes a record if its current revision is this one (0: if there is no record); returns whether it was.
    async fn replace_record(
        &self,
        store: &Token,
        key: &Token,
        revision: u64,
        value: Bytes,
    ) -> Result<bool, TransportError>;

    /// Reads a record: always the latest value.
    async fn get_record(&self, store: &Token, key: &Token) -> Result<Option<Record>, TransportError>;

    /// The backlog of a flow.
    async fn backlog(&self, flow: &FlowName) -> Result<Backlog, TransportError>;

    /// Writes a canary and waits for its confirmation: whether events can be accepted right now.
    async fn ready(&self) -> Result<(), TransportError>;
}
