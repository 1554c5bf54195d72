//! The time that a worker spent waiting for room downstream: it is neither work nor a fault of the operator.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Shared by a worker's output and the clock that limits the worker's calls.
#[derive(Clone, Default)]
pub struct BlockedTime(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Waits that have ended, since the last [`BlockedTime::take`].
    ended: Duration,
    /// When the wait that goes on has begun.
    since: Option<Instant>,
}

impl BlockedTime {
    /// Begins a wait; it ends when the guard is dropped.
    pub fn begin(&self) -> Blocked {
        self.lock().since = Some(Instant::now());
        Blocked(self.clone())
    }

    /// All waits since the last [`take`](Self::take), that which goes on included.
    pub fn total(&self) -> Duration {
        let state = self.lock();
        state.ended + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The waits that have ended since the last call.
    pub fn take(&self) -> Duration {
        std::mem::take(&mut self.lock().ended)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait that goes on.
pub struct Blocked(BlockedTime);

impl Drop for Blocked {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let Some(since) = state.since.take() {
            state.ended += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_wait_counts_while_it_goes_on_and_once_it_has_ended() {
        let blocked = BlockedTime::default();
        let waiting = blocked.begin();
        tokio::time::advance(SECOND).await;
        assert_eq!((blocked.total(), blocked.take()), (SECOND, Duration::ZERO));
        drop(waiting);
        tokio::time::advance(SECOND).await;
        assert_eq!((blocked.total(), blocked.take(), blocked.take()), (SECOND, SECOND, Duration::ZERO));
    }
}
