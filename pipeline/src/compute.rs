//! Threads for work that computes: decoding, resizing, normalising.
//!
//! One pool for all flows, sized from the config, so that the sum of what is computed at once is bounded however many
//! flows there are. The threads run at a lower priority than the ones that serve requests (nice 5): under full load a
//! health check still answers within milliseconds. Interactive work goes before bulk work that waits; while it
//! comes, bulk work leaves one thread free where there are several.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::event::Lane;
use crate::fault::BoxError;

type Job = Box<dyn FnOnce() + Send>;

/// How much further back in the scheduler's line computing threads stand, in nice levels.
const NICE: i32 = 5;

/// A bounded pool of computing threads; cheap to clone. The threads end with the last clone.
#[derive(Clone)]
pub struct Compute {
    entry: Arc<Entry>,
}

/// What the clones share: dropped with the last of them.
struct Entry {
    board: Arc<Board>,
    /// Jobs that may wait, for each lane.
    room: [Arc<Semaphore>; 2],
}

/// Where jobs wait for a thread.
#[derive(Default)]
struct Board {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    interactive: VecDeque<(Job, OwnedSemaphorePermit)>,
    bulk: VecDeque<(Job, OwnedSemaphorePermit)>,
    /// When interactive work last came.
    interactive_at: Option<Instant>,
    /// Threads with bulk work.
    bulk_at_work: usize,
    closed: bool,
}

/// How long after interactive work one thread is kept free.
const COURTESY: Duration = Duration::from_secs(1);

impl Board {
    /// Waits for a job, and says of which lane it is; `None` once the pool is closed and empty. `bulk_threads` is how many
    /// threads may have bulk work while interactive work comes.
    fn next(&self, bulk_threads: usize) -> Option<(Job, Lane)> {
        let mut waiting = self.lock();
        loop {
            if let Some((job, _room)) = waiting.interactive.pop_front() {
                return Some((job, Lane::Interactive));
            }
            let rest = waiting.interactive_at.and_then(|at| COURTESY.checked_sub(at.elapsed()));
            let held_back = rest.is_some() && waiting.bulk_at_work >= bulk_threads && !waiting.closed;
            if !held_back && let Some((job, _room)) = waiting.bulk.pop_front() {
                waiting.bulk_at_work += 1;
                return Some((job, Lane::Bulk));
            }
            if waiting.closed {
                return None;
            }
            waiting = match rest.filter(|_| held_back) {
                Some(rest) => self.changed.wait_timeout(waiting, rest).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn bulk_done(&self) {
        self.lock().bulk_at_work -= 1;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.board.lock().closed = true;
        self.board.changed.notify_all();
    }
}

impl Compute {
    /// Starts `threads` threads (at least one).
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let board = Arc::<Board>::default();
        for index in 0..threads {
            let board = Arc::clone(&board);
            let bulk_threads = (threads - 1).max(1);
            std::thread::Builder::new().name(format!("compute-{index}")).spawn(move || work(&board, bulk_threads))?;
        }
        let room = [(); 2].map(|()| Arc::new(Semaphore::new(threads)));
        Ok(Self { entry: Arc::new(Entry { board, room }) })
    }

    /// Runs `work` on a computing thread once one is free. If the caller is dropped while it waits, the work is not
    /// begun; if it is dropped later, the work ends unheard.
    ///
    /// # Errors
    /// If the work panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BoxError> {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            if !answer.is_closed() {
                // A caller that gives up meanwhile needs no answer.
                let _ = answer.send(work());
            }
        };
        self.post(lane, Box::new(job)).await?;
        answered.await.map_err(|_| "the computation panicked".into())
    }

    async fn post(&self, lane: Lane, job: Job) -> Result<(), BoxError> {
        let room = Arc::clone(&self.entry.room[lane as usize]).acquire_owned().await?;
        let mut waiting = self.entry.board.lock();
        match lane {
            Lane::Interactive => {
                waiting.interactive_at = Some(Instant::now());
                waiting.interactive.push_back((job, room));
            }
            Lane::Bulk => waiting.bulk.push_back((job, room)),
        }
        drop(waiting);
        // All of them: the one that hears may be one that bulk work is held back from.
        self.entry.board.changed.notify_all();
        Ok(())
    }
}

/// Puts the calling thread behind those that serve requests. Best effort: a system that refuses only loses latency.
pub fn lower_priority() {
    // On Linux the priority of "this process" is that of the calling thread.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "thread priority unchanged");
    }
}

fn work(board: &Board, bulk_threads: usize) {
    lower_priority();
    while let Some((job, lane)) = board.next(bulk_threads) {
        // The answer channel closes when a job panics, which tells the caller.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("a computation panicked");
        }
        if lane == Lane::Bulk {
            board.bulk_done();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_and_a_panic_harms_only_its_caller() {
        let compute = Compute::new(2).unwrap();
        for _ in 0..3 {
            assert!(compute.run(Lane::Bulk, || panic!("on purpose")).await.is_err());
        }
        assert_eq!(compute.run(Lane::Interactive, || 6 * 7).await.unwrap(), 42);
    }

    #[tokio::test]
    async fn interactive_work_goes_before_bulk_work_that_waits() {
        let compute = Compute::new(1).unwrap();
        let (hold, held) = std::sync::mpsc::sync_channel::<()>(1);
        let (begun, has_begun) = oneshot::channel();
        let (order, seen) = std::sync::mpsc::sync_channel(4);
        let busy = tokio::spawn({
            let compute = compute.clone();
            let work = move || {
                let _ = begun.send(());
                held.recv()
            };
            async move { compute.run(Lane::Bulk, work).await }
        });
        has_begun.await.unwrap();
        let note = |lane: Lane| {
            let (compute, order) = (compute.clone(), order.clone());
            async move { compute.run(lane, move || order.send(lane)).await }
        };
        let (mut bulk, mut interactive) = (Box::pin(note(Lane::Bulk)), Box::pin(note(Lane::Interactive)));
        for polled in [&mut bulk, &mut interactive] {
            assert!(futures_util::FutureExt::now_or_never(polled.as_mut()).is_none());
        }
        hold.send(()).unwrap();
        bulk.await.unwrap().unwrap();
        interactive.await.unwrap().unwrap();
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [Lane::Interactive, Lane::Bulk]);
        busy.await.unwrap().unwrap().unwrap();
    }
}
