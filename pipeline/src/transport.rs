//! What the engine and the gateway need from a broker, as a trait.
//!
//! Two implementations: JetStream (crate `nats`) and memory ([`crate::testing`]). The words of every method are the
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

/// Why the broker did not do as asked.
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
    /// What a claim names is gone or not what it was.
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
    /// The broker is out of reach, out of space, or did not answer in time. Whether it stored anything is unknown.
    #[error("broker unavailable")]
    Unavailable(#[source] BoxError),
}

impl TransportError {
    /// Wraps a client library's error.
    pub fn unavailable(error: impl Into<BoxError>) -> Self {
        Self::Unavailable(error.into())
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
pub enum Submitted {
    /// It is in the queue now, or was by an attempt of ours.
    Stored,
    /// The broker has seen this id before: what this one refers to is referred to by nobody.
    Known,
}

/// What a source may hold at once.
#[derive(Clone, Copy, Debug)]
pub struct SourceBounds {
    /// Events delivered and not yet settled.
    pub events: usize,
    /// Bytes of them, as they came; at least one event of the largest size is always let through.
    pub bytes: usize,
    /// Whether events keep the order of their keys: the transport then delivers one unsettled event of a key at a time.
    pub ordered: bool,
    /// How long the broker waits for word of a delivered event. The transport itself reports progress for as long as the
    /// [`Delivery`] is held.
    pub ack_wait: Duration,
    /// Deliveries after which the transport stops delivering; a net under the engine's own count.
    pub max_deliver: u32,
}

/// What becomes of a delivered event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Every effect is confirmed: forget it.
    Done,
    /// The same, and wait until the broker has confirmed: for who must know that it will not come again.
    DoneForSure,
    /// Deliver it again after this long, and why: a short text without line breaks, for whoever looks at the broker.
    Retry(Duration, Arc<str>),
}

/// The broker's handle on one delivered event. Dropped unsettled, the event is delivered again.
#[async_trait]
pub trait Acknowledge: Send + Sync {
    /// Tells the broker; a lost word means a repeat. Whether the broker has confirmed, which only
    /// [`Settlement::DoneForSure`] waits for.
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
    /// Interruptions of the broker are waited out inside.
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

/// An event that ended in failure, kept so that a person can look, retry or drop it.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// As it was delivered.
    pub envelope: Envelope,
    /// As it was delivered; its claims are kept.
    pub payload: Payload,
    /// The stage that failed.
    pub stage: Arc<str>,
    /// Times that it failed; 0 if it was never tried to the end.
    pub faults: u32,
    /// What the requester was told.
    pub cause: Rejection,
    /// The last error with its causes, for whoever runs the service; never for the requester.
    pub error: Option<Arc<str>>,
}

/// A dead letter with its place among all of them.
#[derive(Clone, Debug)]
pub struct KeptLetter {
    /// Names it; later letters have higher ids.
    pub id: u64,
    /// What was kept. `envelope.attempt` is the number of its last delivery.
    pub letter: DeadLetter,
}

/// Backlog of one flow in the broker, un-acked included.
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
    /// Whether nothing waits.
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

/// The last value written under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// As written.
    pub value: Bytes,
    /// Grows with every write of the store.
    pub revision: u64,
}

/// What a stored body is for, which says how long it is kept.
#[derive(Clone, Copy, Debug)]
pub enum BodyOf<'a> {
    /// An event of this flow. It goes when the event has ended, with its dead letter if it has one; and after a while if no
    /// event came to refer to it.
    Event(&'a FlowName),
    /// A result. It goes when results can no longer be read.
    Result,
    /// A template. It stays until it is dropped.
    Template,
}

/// Live results of one request, from the moment of [`Transport::watch`].
///
/// Ends (`recv` gives `None`) when the watcher fell behind by more than the channel's bound: read the history again.
pub struct Watch {
    /// Results in stored order, shared by everybody who watches: a channel sets room aside for some thirty, and most
    /// watches are silent.
    pub outcomes: mpsc::Receiver<Arc<Outcome>>,
    /// Deregisters the watch when dropped.
    pub guard: Box<dyn Send + Sync>,
}

/// A broker.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Stores an event. Returning `Ok` is the promise "accepted means kept". A repeat with the same id within the broker's
    /// window is stored once.
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

    /// Everything stored for a request so far, in order; empty if the id was never accepted or is forgotten.
    async fn outcomes(&self, request: &RequestId) -> Result<Vec<Outcome>, TransportError>;

    /// Requests that are given up from now on, by whichever process stores their `cancelled`. Best effort: a word may be
    /// lost. Ends when the connection does.
    async fn cancellations(&self) -> Result<mpsc::Receiver<RequestId>, TransportError>;

    /// Events of a flow as they are submitted, from now on and by whomever, those among them that the broker then refuses or
    /// already has. Best effort: what its reader is too slow for is lost. Ends when the connection does.
    async fn tail(&self, flow: &FlowName) -> Result<mpsc::Receiver<Submission>, TransportError>;

    /// Registers for what will be stored from now on. Register first, then submit or read the history; what appears in
    /// both has the same ordinal.
    fn watch(&self, request: &RequestId) -> Watch;

    /// Stores a body as it streams in, hashing on the way. Nothing of it is visible, and all of it is removed, if the
    /// stream ends in an error.
    async fn put_claim(
        &self,
        of: BodyOf<'_>,
        body: BoxStream<'_, Result<Bytes, BoxError>>,
    ) -> Result<Claim, TransportError>;

    /// Reads a body back whole, length and digest compared.
    async fn get_claim(&self, claim: &Claim) -> Result<Bytes, TransportError>;

    /// Removes a body; no error if it is gone.
    async fn drop_claim(&self, claim: &Claim) -> Result<(), TransportError>;

    /// Keeps an event that failed.
    async fn dead_letter(&self, letter: DeadLetter) -> Result<(), TransportError>;

    /// Up to `limit` dead letters from id `from` on, oldest first, of one flow or of all.
    async fn dead_letters(
        &self,
        flow: Option<&FlowName>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<KeptLetter>, TransportError>;

    /// Removes a dead letter, not the claims it names; no error if it is gone.
    async fn remove_dead_letter(&self, id: u64) -> Result<(), TransportError>;

    /// Notes that events have ended, so that a copy that comes later is known. Confirmed when it returns.
    async fn note_ended(&self, entries: &[Entry]) -> Result<(), TransportError>;

    /// What is noted: everything kept so far, then [`News::CaughtUp`], then whatever any process notes. Interruptions of
    /// the broker are waited out inside; what was told may be told again.
    async fn ended(&self) -> Result<mpsc::Receiver<News>, TransportError>;

    /// Writes a record of a named store, replacing what was there; its revision.
    async fn put_record(&self, store: &Token, key: &Token, value: Bytes) -> Result<u64, TransportError>;

    /// Writes a record if the last one has this revision (0: if there is none); whether it had.
    async fn replace_record(
        &self,
        store: &Token,
        key: &Token,
        revision: u64,
        value: Bytes,
    ) -> Result<bool, TransportError>;

    /// Reads a record: always the last one written.
    async fn get_record(&self, store: &Token, key: &Token) -> Result<Option<Record>, TransportError>;

    /// How much waits.
    async fn backlog(&self, flow: &FlowName) -> Result<Backlog, TransportError>;

    /// Writes and confirms a canary: whether "accepted" could be promised right now.
    async fn ready(&self) -> Result<(), TransportError>;
}
