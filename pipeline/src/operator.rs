//! The trait of a stage: takes a batch of events, emits events.

use std::time::Duration;

use async_trait::async_trait;

use crate::event::Event;
use crate::fault::{Fault, Rejection};
use crate::payload::{Payload, PayloadKind};

pub use crate::edges::Output;

/// How many events a worker may take at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Most events in one batch.
    pub events: usize,
    /// How long to wait for a fuller batch; zero takes the events that are waiting (greedy).
    pub linger: Duration,
}

impl Batching {
    /// One event at a time.
    pub const ONE: Self = Self::greedy(1);

    /// The events that are waiting, up to `events`.
    #[must_use]
    pub const fn greedy(events: usize) -> Self {
        Self { events, linger: Duration::ZERO }
    }
}

/// The payload types that a stage takes and gives, checked when the config is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTypes {
    /// Payload types it accepts.
    pub takes: &'static [PayloadKind],
    /// What it emits.
    pub gives: Emits,
}

/// The payload type that a stage emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emits {
    /// Always this type.
    Kind(PayloadKind),
    /// The type that came in.
    Same,
    /// Nothing: the stage is a sink.
    Nothing,
}

/// One step of a flow: takes a batch in, emits events out.
///
/// A worker of the stage runs `loop { process(batch) }` on its own instance; more throughput is more instances. Only the
/// engine settles, retries and acknowledges. Work that computes for more than 500 µs must leave the async runtime
/// ([`Services::compute`](crate::Services::compute), or a thread of its own).
#[async_trait]
pub trait Operator: Send {
    /// Handles one batch.
    ///
    /// Once [`Output::emit`] has returned, the next stage has the event, or a durable edge is storing it; the root settles
    /// only when it is stored. One bad event is [rejected](Output::reject) and the others go on. An effect must be idempotent under the event's id, because a batch
    /// that fails, or whose process dies, is processed again.
    ///
    /// # Errors
    /// - [`Fault::Retry`] if the batch failed and may work later: its events are tried one at a time, and those that fail
    ///   again are redelivered after a pause. Each failure of a single event counts; `retry.attempts` of them end in a dead
    ///   letter.
    /// - [`Fault::Unavailable`] if something that the stage depends on is out of reach (a refused connection, a full disk),
    ///   so that any batch would fail: the stage keeps the batch and calls again, with growing pauses, until the dependency
    ///   is back, or `retry.outage_ms` have passed, if that is set: only then does it count as a failure.
    /// - [`Fault::Fatal`] if the stage is broken: the flow stops and acknowledges nothing.
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault>;

    /// Closes what the operator has open. Called once, after the last batch.
    ///
    /// # Errors
    /// If something could not be flushed; the events of the last batch are already settled.
    async fn close(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Returns the events whose payload `pick` accepts, and rejects the others.
///
/// The types of neighbouring stages were checked when the config was loaded, so a rejection here means that a payload of
/// another type was published to the flow.
pub fn take_kind<T>(batch: Vec<Event>, out: &mut Output, pick: impl Fn(&Payload) -> Option<T>) -> Vec<(Event, T)> {
    let mut taken = Vec::with_capacity(batch.len());
    for event in batch {
        match pick(&event.payload) {
            Some(value) => taken.push((event, value)),
            None => {
                let kind = event.payload.kind();
                out.reject(&event, Rejection::unsupported("payload_kind", format!("this stage does not take {kind}")));
            }
        }
    }
    taken
}
