//! Storage outages: a write that the broker refuses or does not confirm waits where it is, and is tried again until it is
//! stored.
//!
//! ```text
//! Up ──a write fails──▶ Down ──the last write that waits is stored, or is given up──▶ Up
//! ```
//!
//! The events keep their places meanwhile, which pushes back to the source, and the transport reports progress for them.
//! Waiting is neither a fault nor a new delivery. It ends with the flow: what is not stored by the deadline of a drain is
//! handed back to the broker.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::names::FlowName;
use crate::pauses::Pauses;
use crate::transport::TransportError;

/// The storage behind a flow, as its writes see it. `waiting` counts the events whose writes wait; it is never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No write waits.
    #[default]
    Up,
    /// Writes wait, the first since then.
    Down { since: Instant, waiting: usize },
}

impl State {
    /// A write of so many events failed and waits from now on; returns whether that begins an outage.
    fn join(&mut self, events: usize, now: Instant) -> bool {
        let (begins, since, waiting) = match *self {
            Self::Up => (true, now, 0),
            Self::Down { since, waiting } => (false, since, waiting),
        };
        *self = Self::Down { since, waiting: waiting + events };
        begins
    }

    /// A write that waited is stored or given up; returns how long the outage lasted if that ends it.
    fn leave(&mut self, events: usize, now: Instant) -> Option<Duration> {
        let Self::Down { since, waiting } = *self else { return None };
        let waiting = waiting.saturating_sub(events);
        *self = if waiting > 0 { Self::Down { since, waiting } } else { Self::Up };
        (waiting == 0).then(|| now - since)
    }
}

/// The storage outages of one flow, shared by everything of the flow that writes.
pub struct StorageOutage {
    flow: FlowName,
    state: Mutex<State>,
    /// Cancelled when the flow ends: nothing waits any longer.
    stop: CancellationToken,
}

impl StorageOutage {
    /// For a flow whose writes are stored.
    pub fn new(flow: FlowName) -> Self {
        Self { flow, state: Mutex::default(), stop: CancellationToken::new() }
    }

    /// Events whose writes wait.
    pub fn waiting(&self) -> usize {
        match *self.state() {
            State::Up => 0,
            State::Down { waiting, .. } => waiting,
        }
    }

    /// Resolves when the flow ends.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Ends all waiting when dropped.
    pub fn stop_on_drop(&self) -> DropGuard {
        self.stop.clone().drop_guard()
    }

    /// Begins a write of so many events. Takes no lock until the write fails.
    pub fn begin(&self, events: usize) -> StorageWait<'_> {
        StorageWait { outage: self, events, pauses: Pauses::default(), in_line: false, stored: false }
    }

    /// Repeats a write of so many events until it is stored, or fails for a reason that will not pass. Waits for as long
    /// as the flow lives.
    ///
    /// # Errors
    /// The reason that will not pass; the last refusal if the flow ends.
    pub async fn wait_out<T, W>(&self, events: usize, write: impl Fn() -> W) -> Result<T, TransportError>
    where
        W: Future<Output = Result<T, TransportError>>,
    {
        let mut wait = self.begin(events);
        loop {
            match write().await {
                Err(error) if error.will_pass() => {
                    if !wait.pause(&error).await {
                        return Err(error);
                    }
                }
                Ok(stored) => {
                    wait.end();
                    return Ok(stored);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One write's wait, from its first attempt to its last. Dropped, it no longer waits.
pub struct StorageWait<'o> {
    outage: &'o StorageOutage,
    events: usize,
    pauses: Pauses,
    /// Whether the events are counted in the state.
    in_line: bool,
    /// Whether the last attempt was stored.
    stored: bool,
}

impl StorageWait<'_> {
    /// Waits for the next attempt; `false` if the flow has ended.
    pub async fn pause(&mut self, error: &TransportError) -> bool {
        if !self.in_line && self.outage.state().join(self.events, Instant::now()) {
            let cause = error as &dyn std::error::Error;
            tracing::warn!(flow = %self.outage.flow, cause, "not stored, the flow keeps its events and tries again");
        }
        self.in_line = true;
        tokio::select! {
            biased;
            () = self.outage.stop.cancelled() => false,
            () = self.pauses.pause() => true,
        }
    }

    /// The write does not wait any longer: it is stored, or its events take another way.
    pub fn end(&mut self) {
        self.stored = true;
    }
}

impl Drop for StorageWait<'_> {
    fn drop(&mut self) {
        let ended = if self.in_line { self.outage.state().leave(self.events, Instant::now()) } else { None };
        let Some(lasted) = ended else { return };
        let flow = &self.outage.flow;
        match self.stored {
            true => tracing::info!(%flow, ?lasted, "stored again"),
            false => tracing::warn!(%flow, ?lasted, "no write waits any longer, the last one was not stored"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn outage() -> StorageOutage {
        StorageOutage::new(FlowName::new("f").unwrap())
    }

    fn refused<T>() -> Result<T, TransportError> {
        Err(TransportError::unavailable("no room"))
    }

    #[test]
    fn the_first_write_that_fails_begins_an_outage() {
        let (mut state, now) = (State::Up, Instant::now());
        assert!(state.join(2, now));
        assert!(!state.join(3, now + SECOND));
        assert_eq!(state, State::Down { since: now, waiting: 5 });
    }

    #[test]
    fn the_last_write_to_be_stored_ends_it_and_tells_how_long_it_lasted() {
        let since = Instant::now();
        let mut state = State::Down { since, waiting: 3 };
        assert_eq!(state.leave(2, since + SECOND), None);
        assert_eq!(state.leave(1, since + 2 * SECOND), Some(2 * SECOND));
        assert_eq!(state, State::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_repeated_until_it_is_stored() {
        let (outage, begun) = (outage(), Instant::now());
        let write = async || if begun.elapsed() < 75 * SECOND { refused() } else { Ok("stored") };
        assert_eq!(outage.wait_out(1, write).await.unwrap(), "stored");
        assert!(begun.elapsed() < 78 * SECOND);
        assert_eq!(outage.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_counted() {
        let outage = outage();
        let mut wait = outage.begin(3);
        assert!(wait.pause(&TransportError::unavailable("no room")).await);
        assert_eq!(outage.waiting(), 3);
        drop(wait);
        assert_eq!(outage.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_two_seconds() {
        let (outage, tries) = (outage(), AtomicU32::new(0));
        let write = async || {
            tries.fetch_add(1, Ordering::Relaxed);
            refused::<()>()
        };
        assert!(tokio::time::timeout(60 * SECOND, outage.wait_out(1, write)).await.is_err());
        assert!((30..=50).contains(&tries.load(Ordering::Relaxed)), "{tries:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_not_pass_is_not_repeated() {
        let (outage, begun) = (outage(), Instant::now());
        let gone = async || Err::<(), _>(TransportError::NoFlow(FlowName::new("f").unwrap()));
        assert!(matches!(outage.wait_out(1, gone).await, Err(TransportError::NoFlow(_))));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_with_the_flow() {
        let outage = outage();
        drop(outage.stop_on_drop());
        assert!(outage.wait_out(1, async || refused::<()>()).await.is_err());
    }
}
