//! Restarts workers: starts one for each that ended, with exponential backoff while workers crash before their first
//! job.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::pool_state::{PoolState, StartRequest};
use super::worker_process::Worker;

/// This many early crashes in [`WINDOW`] are a crash loop.
const CRASH_LOOP: usize = 5;
const WINDOW: Duration = Duration::from_mins(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Detects crash loops and computes the backoff.
#[derive(Default)]
struct CrashLoop {
    /// Times of the last early crashes.
    crashes: VecDeque<Instant>,
    backoff: Duration,
}

impl CrashLoop {
    fn record_crash(&mut self, now: Instant) {
        self.crashes.push_back(now);
        if self.crashes.len() > CRASH_LOOP {
            self.crashes.pop_front();
        }
    }

    /// A worker that does not start counts as a crash loop at once: the next one would fail too.
    fn record_failed_start(&mut self, now: Instant) {
        self.crashes = [now; CRASH_LOOP].into();
    }

    /// The end of the crash loop, if there is one now.
    fn until(&self, now: Instant) -> Option<Instant> {
        let first = self.crashes.front().filter(|_| self.crashes.len() == CRASH_LOOP);
        first.map(|first| *first + WINDOW).filter(|until| now < *until)
    }

    /// How long to wait before the next start: zero, or twice as long as the last time.
    fn backoff(&mut self, now: Instant) -> Duration {
        self.backoff = match (self.until(now), self.backoff) {
            (None, _) => Duration::ZERO,
            (Some(_), Duration::ZERO) => Duration::from_secs(1),
            (Some(_), last) => (last * 2).min(MAX_BACKOFF),
        };
        self.backoff
    }
}

/// Starts a worker for each request, one after the other, until the pool is closed.
pub(super) async fn respawn_workers(
    pool: Arc<PoolState>,
    mut requests: mpsc::Receiver<StartRequest>,
    idle: mpsc::Sender<Worker>,
) {
    let mut crash_loop = CrashLoop::default();
    while let Some(request) = requests.recv().await {
        if request == StartRequest::AfterEarlyCrash {
            crash_loop.record_crash(Instant::now());
        }
        loop {
            let now = Instant::now();
            *pool.crash_loop_until.lock().unwrap_or_else(PoisonError::into_inner) = crash_loop.until(now);
            tokio::time::sleep(crash_loop.backoff(now)).await;
            match Worker::start(&pool.config, pool.root.path(), &pool.spawner).await {
                Ok(worker) => {
                    pool.metrics.worker_started(worker.pid());
                    // The channel has room for all workers.
                    drop(idle.send(worker).await);
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "a document worker did not start");
                    crash_loop.record_failed_start(Instant::now());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_in_a_crash_loop_and_ends_with_it() {
        let start = Instant::now();
        let mut crash_loop = CrashLoop::default();
        for _ in 0..4 {
            crash_loop.record_crash(start);
            assert_eq!(crash_loop.backoff(start), Duration::ZERO);
        }
        let mut backoffs = Vec::new();
        for _ in 0..7 {
            crash_loop.record_crash(start);
            backoffs.push(crash_loop.backoff(start).as_secs());
        }
        assert_eq!(backoffs, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(crash_loop.until(start), Some(start + WINDOW));
        // However long the crash loop goes on.
        let mut now = start;
        for _ in 0..20 {
            crash_loop.record_failed_start(now);
            assert_eq!(crash_loop.backoff(now), MAX_BACKOFF);
            now += MAX_BACKOFF;
        }
        crash_loop.crashes = [start; CRASH_LOOP].into();
        assert_eq!((crash_loop.until(start + WINDOW), crash_loop.backoff(start + WINDOW)), (None, Duration::ZERO));
    }
}
