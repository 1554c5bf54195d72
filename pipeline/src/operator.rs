//! The one trait of a stage, and what it may do with its input.

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
    /// How long to wait for a fuller batch; zero takes what is there (greedy).
    pub linger: Duration,
}

impl Batching {
    /// One event at a time.
    pub const ONE: Self = Self::greedy(1);

    /// Whatever waits, up to `events`.
    #[must_use]
    pub const fn greedy(events: usize) -> Self {
        Self { events, linger: Duration::ZERO }
    }
}

/// What a stage takes and what it gives, checked when the config is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Payload types it accepts.
    pub takes: &'static [PayloadKind],
    /// What it emits.
    pub gives: Gives,
}

/// The output end of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// Always this type.
    Kind(PayloadKind),
    /// Whatever came in.
    Same,
    /// Nothing: the stage is a sink.
    Nothing,
}

/// One step of a flow: takes a batch in, emits events out.
///
/// A worker of the stage runs `loop { process(batch) }` on its own instance; more throughput is more instances. The
/// runner alone settles, retries and acknowledges. Work that computes for more than 500 µs must leave the async runtime
/// ([`Services::compute`](crate::Services::compute), or a thread of its own).
#[async_trait]
pub trait Operator: Send {
    /// Handles one batch.
    ///
    /// What was emitted is stored or taken over by the next stage before this returns. One bad event is
    /// [rejected](Output::reject) and its neighbours go on. An effect must be idempotent under the event's id, because a
    /// batch that fails, or whose process dies, comes again.
    ///
    /// # Errors
    /// [`Fault::Retry`] if the whole batch should come again later, [`Fault::Fatal`] if the stage is broken.
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault>;

    /// Releases what the operator holds open. Called once, after the last batch.
    ///
    /// # Errors
    /// If something could not be flushed; the events of the last batch are already settled.
    async fn close(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Hands every event whose payload `pick` accepts to the caller and rejects the others.
///
/// The stage ends were checked at load, so a rejection here means that somebody published a payload of another type.
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
