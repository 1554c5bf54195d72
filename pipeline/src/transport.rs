//! The broker as a trait: what the engine and the gateway need from it.
//!
//! Two implementations: JetStream (crate `nats`) and memory ([`crate::testing`]). The documentation of every method is the
//! contract of both.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use crate::envelope::{Envelope, Lane};
use crate::fault::{BoxError, Rejection};
use crate::ledger::{Entry, LedgerUpdate};
use crate::names::{FlowName, RequestId, Token};
use crate::outcome::Outcome;
use crate::payload::{Claim, Payload};

/// A body at most this long travels inside its event; a longer one becomes a claim.
pub const INLINE_LIMIT: usize = 256 << 10;

/// Why the broker did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The flow's backlog is full; nothing was stored.
    #[error("the queue of flow {flow} is full")]
    Full {
        /// The flow.
        flow: FlowName,
    },
    /// No such flow is declared.
    #[error("no flow {0}")]
    NoFlow(FlowName),
    /// The object of a claim is gone or was altered.
    #[error("claim {id} cannot be read: {why}")]
    Claim {
        /// The object.
        id: Token,
        /// Expired, cut short, or altered.
        why: &'static str,
    },
    /// The body's stream broke or exceeded its limit; the part that was stored is removed.
    #[error("body could not be read")]
    Body(#[source] BoxError),
    /// The broker is out of reach, out of space, or did not answer in time. Whether it stored anything is unknown.
    #[error("broker unavailable")]
    Unavailable(#[source] BoxError),
    /// The broker is known to refuse this: nothing was sent, so nothing is stored.
    #[error("broker unavailable")]
    NotSent(#[source] BoxError),
}

impl TransportError {
    /// Wraps a client library's error.
    pub fn unavailable(error: impl Into<BoxError>) -> Self {
        Self::Unavailable(error.into())
    }

    /// Whether the same call may succeed later, without any change to it.
    #[must_use]
    pub fn will_pass(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Unavailable(_) | Self::NotSent(_))
    }
}

/// An event about to be stored. Its payload is bytes, parts or JSON.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Attributes; `attempt` is ignored.
    pub envelope: Envelope,
    /// Inline or claimed content.
    pub payload: Payload,
}

/// Whether a submission was the first of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitAck {
    /// It is in the queue now, or an earlier attempt of this call had stored it.
    Stored,
    /// The broker has seen this id before: the claims of this submission are orphaned.
    Duplicate,
}

/// The bounds of a source.
#[derive(Clone, Copy, Debug)]
pub struct SourceBounds {
    /// Most events delivered and not yet settled.
    pub events: usize,
    /// Most bytes of them, as delivered; at least one event of the largest size always passes.
    pub bytes: usize,
    /// Whether events keep the order of their keys: the transport then delivers one unsettled event of a key at a time.
    pub ordered: bool,
    /// How long the broker waits for a progress report before it redelivers an event. The transport itself reports progress
    /// while the [`Delivery`] exists.
    pub ack_wait: Duration,
    /// Deliveries after which the transport stops delivering; a safety limit under the engine's own count.
    pub max_deliver: u32,
}

/// How a delivered event is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Every effect is confirmed: acknowledge it.
    Done,
    /// The same, and wait until the broker has confirmed: then it will not be redelivered.
    DoneConfirmed,
    /// Redeliver it after this long, and why: a short text without line breaks, for people who look at the broker.
    Retry(Duration, Arc<str>),
}

/// The broker's handle on one delivered event. Dropped unsettled, the event is redelivered.
#[async_trait]
pub trait Acknowledge: Send + Sync {
    /// Sends the settlement; if it is lost, the event is redelivered. Returns whether the broker has confirmed, for which
    /// only [`Settlement::DoneConfirmed`] waits.
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
    /// The next event, or `None` when the source was closed for good. Cancel-safe: dropping the future loses nothing.
    ///
    /// Waits through interruptions of the broker.
    async fn next(&mut self) -> Option<Delivery>;
}

/// Whether a result was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultAck {
    /// It was stored.
    Stored,
    /// It was refused: the request already has its terminal result, or this ordinal is taken.
    Refused,
}

/// A dead letter: an event that ended in failure, stored so that a person can inspect, retry or drop it.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// As it was delivered.
    pub envelope: Envelope,
    /// As it was delivered; its claims stay stored.
    pub payload: Payload,
    /// The stage that failed.
    pub stage: Arc<str>,
    /// Times that it failed; 0 if it was rejected without a fault.
    pub faults: u32,
    /// The failure as the requester got it.
    pub cause: Rejection,
    /// The last error with its causes, for operators of the service; never for the requester.
    pub error: Option<Arc<str>>,
}

/// A stored dead letter.
#[derive(Clone, Debug)]
pub struct StoredDeadLetter {
    /// Its id; later letters have higher ids.
    pub id: u64,
    /// The letter. `envelope.attempt` is the number of its last delivery.
    pub letter: DeadLetter,
}

/// Backlog of one flow in the broker, unacknowledged events included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Events in the interactive lane.
    pub interactive: u64,
    /// Events in the bulk lane.
    pub bulk: u64,
    /// Events of both lanes that ever left the queue; grows for as long as the queue exists.
    pub ended: u64,
}

impl Backlog {
    /// Whether no event waits.
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

/// A record: the last value written under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// As written.
    pub value: Bytes,
    /// Grows with every write of the store.
    pub revision: u64,
}

/// What a stored body belongs to, which decides how long it is stored.
#[derive(Clone, Copy, Debug)]
pub enum BodyOwner<'a> {
    /// A request that may become an event of this flow, stored as an event's body is. It is refused while the store still
    /// has room for what follows from events that were accepted.
    Request(&'a FlowName),
    /// An event of this flow. It is removed when the event has ended, or with its dead letter if it has one; and after a
    /// while if no event refers to it.
    Event(&'a FlowName),
    /// A result. It is removed when results can no longer be read.
    Result,
    /// A template. It stays until it is dropped.
    Template,
}

/// Live results of one request, from the moment of [`Transport::watch`].
///
/// Ends (`recv` returns `None`) when the watcher fell behind by more than the channel's bound: read the history again.
pub struct Watch {
    /// Results in stored order. Each is shared by all watchers, because a channel reserves room for some thirty and most
    /// watches are silent.
    pub outcomes: mpsc::Receiver<Arc<Outcome>>,
    /// Deregisters the watch when dropped.
    pub guard: Box<dyn Send + Sync>,
}

/// Says that a process lives, until it is dropped.
pub type Announcement = Box<dyn Send + Sync>;

/// A broker.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Stores an event at the end of its lane. `Ok` promises that it is stored durably. A repeat with the same id within the
    /// broker's window is stored once.
    async fn submit(&self, submission: Submission) -> Result<SubmitAck, TransportError>;

    /// Opens a source of a lane.
    async fn source(
        &self,
        flow: &FlowName,
        lane: Lane,
        bounds: SourceBounds,
    ) -> Result<Box<dyn Source>, TransportError>;

    /// Stores a result; stored when it returns. The first terminal result wins; everything after it is refused, except
    /// `accepted`, which a worker may have overtaken.
    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck, TransportError>;

    /// All results stored for a request so far, in order; empty if the id was never accepted or its results have expired.
    async fn outcomes(&self, request: &RequestId) -> Result<Vec<Outcome>, TransportError>;

    /// Requests that are cancelled from now on, whichever process stores their `cancelled`. Best effort: one may be lost.
    /// Ends when the connection does.
    async fn cancellations(&self) -> Result<mpsc::Receiver<RequestId>, TransportError>;

    /// Events of a flow as any process submits them from now on, including those that the broker then refuses or already
    /// has. Best effort: events for which the reader is too slow are lost. Ends when the connection does.
    async fn tail(&self, flow: &FlowName) -> Result<mpsc::Receiver<Submission>, TransportError>;

    /// Registers for results stored from now on. Register first, then submit or read the history; a result in both has the
    /// same ordinal.
    fn watch(&self, request: &RequestId) -> Watch;

    /// Stores a body as it streams in, hashing on the way. If the stream ends in an error, nothing of it is visible and all
    /// of it is removed.
    async fn put_claim(
        &self,
        of: BodyOwner<'_>,
        body: BoxStream<'_, Result<Bytes, BoxError>>,
    ) -> Result<Claim, TransportError>;

    /// Reads a whole body; its length and digest are verified.
    async fn get_claim(&self, claim: &Claim) -> Result<Bytes, TransportError>;

    /// Removes a body; no error if it is gone.
    async fn drop_claim(&self, claim: &Claim) -> Result<(), TransportError>;

    /// Stores a dead letter; stored when it returns.
    async fn dead_letter(&self, letter: DeadLetter) -> Result<(), TransportError>;

    /// Up to `limit` dead letters from id `from` on, oldest first, of one flow or of all.
    async fn dead_letters(
        &self,
        flow: Option<&FlowName>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredDeadLetter>, TransportError>;

    /// Removes a dead letter but not its claims; no error if it is gone.
    async fn remove_dead_letter(&self, id: u64) -> Result<(), TransportError>;

    /// Stores ledger entries of events that have ended, so that a later copy is recognised. Stored when it returns.
    async fn note_ended(&self, entries: &[Entry]) -> Result<(), TransportError>;

    /// The ledger: all stored entries, then [`LedgerUpdate::CaughtUp`], then the entries that any process stores. Waits through
    /// interruptions of the broker; an entry may be sent twice.
    async fn ended(&self) -> Result<mpsc::Receiver<LedgerUpdate>, TransportError>;

    /// Writes a record of a named store, replacing the last one; returns its revision.
    async fn put_record(&self, store: &Token, key: &Token, value: Bytes) -> Result<u64, TransportError>;

    /// Writes a record if the last one has this revision (0: if there is none); returns whether it had.
    async fn replace_record(
        &self,
        store: &Token,
        key: &Token,
        revision: u64,
        value: Bytes,
    ) -> Result<bool, TransportError>;

    /// Reads a record: always the last one written; `None` if there is none.
    async fn get_record(&self, store: &Token, key: &Token) -> Result<Option<Record>, TransportError>;

    /// Says to every process that `process` lives, for as long as the announcement is held and this process runs. In force
    /// when it returns.
    async fn announce(&self, process: &Token) -> Result<Announcement, TransportError>;

    /// Whether a process is announced. One that does not answer counts as alive: only one that nobody announces is gone.
    async fn is_alive(&self, process: &Token) -> Result<bool, TransportError>;

    /// The backlog of a flow.
    async fn backlog(&self, flow: &FlowName) -> Result<Backlog, TransportError>;

    /// Writes and confirms a canary: `Ok` if a submission could be stored right now.
    async fn ready(&self) -> Result<(), TransportError>;
}
