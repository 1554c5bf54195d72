//! The compute pool: threads for decoding, resizing, normalising.
//!
//! One pool for all flows, sized from the config, so that concurrent computation is bounded however many flows there are.
//! Its threads run at a lower priority than those that serve requests (nice 5), and at the lowest for bulk work (nice 19):
//! under full load a health check still answers within milliseconds, and an interactive image takes the processor from a
//! bulk one instead of waiting for it. Without interactive work bulk work has every core.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::envelope::Lane;
use crate::fault::BoxError;

type Job = Box<dyn FnOnce() + Send>;

/// The nice level of a lane's threads.
fn nice(lane: Lane) -> i32 {
    match lane {
        Lane::Interactive => 5,
        Lane::Bulk => 19,
    }
}

/// A bounded pool of computing threads; cheap to clone. The threads end with the last clone.
#[derive(Clone)]
pub struct Compute {
    interactive: mpsc::Sender<Job>,
    bulk: mpsc::Sender<Job>,
}

impl Compute {
    /// Starts `threads` threads (at least one) for each lane.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        Ok(Self { interactive: start(threads, Lane::Interactive)?, bulk: start(threads, Lane::Bulk)? })
    }

    /// Runs `work` on a thread of its lane once one is free; jobs of a lane begin in the order of their calls. If the caller
    /// is dropped while it waits, the work is not begun; if it is dropped later, the result is discarded.
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
                // A caller that was dropped meanwhile needs no result.
                let _ = answer.send(work());
            }
        };
        let jobs = match lane {
            Lane::Interactive => &self.interactive,
            Lane::Bulk => &self.bulk,
        };
        jobs.send(Box::new(job)).await.map_err(|_| "the compute threads are gone")?;
        answered.await.map_err(|_| "the computation panicked".into())
    }
}

/// Starts the threads of one lane; as many jobs may wait as there are threads.
fn start(threads: usize, lane: Lane) -> std::io::Result<mpsc::Sender<Job>> {
    let (jobs, queue) = mpsc::channel::<Job>(threads);
    let queue = Arc::new(Mutex::new(queue));
    for index in 0..threads {
        let queue = Arc::clone(&queue);
        let name = format!("{}-{index}", lane.as_str());
        std::thread::Builder::new().name(name).spawn(move || work(&queue, lane))?;
    }
    Ok(jobs)
}

/// Lowers the priority of the calling thread to that of the compute threads of interactive work.
pub fn lower_priority() {
    set_nice(nice(Lane::Interactive));
}

/// Best effort: a system that refuses only loses latency.
fn set_nice(nice: i32) {
    // On Linux the priority of "this process" is that of the calling thread.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, "thread priority unchanged");
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>, lane: Lane) {
    set_nice(nice(lane));
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        // A panic drops the job's answer channel, which tells the caller.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("a computation panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_and_a_panic_harms_only_its_caller() {
        let compute = Compute::new(2).unwrap();
        for lane in [Lane::Interactive, Lane::Bulk, Lane::Bulk] {
            assert!(compute.run(lane, || panic!("on purpose")).await.is_err());
        }
        assert_eq!(compute.run(Lane::Interactive, || 6 * 7).await.unwrap(), 42);
    }

    #[tokio::test]
    async fn interactive_work_does_not_wait_for_bulk_work_and_stands_before_it() {
        let compute = Compute::new(1).unwrap();
        let (hold, held) = std::sync::mpsc::sync_channel::<()>(1);
        let own = || rustix::process::getpriority_process(None).unwrap();
        let busy = tokio::spawn({
            let compute = compute.clone();
            async move { compute.run(Lane::Bulk, move || (held.recv(), own())).await }
        });
        let interactive = compute.run(Lane::Interactive, own).await.unwrap();
        hold.send(()).unwrap();
        let (_, bulk) = busy.await.unwrap().unwrap();
        assert!(interactive < bulk, "{interactive} {bulk}");
    }
}
