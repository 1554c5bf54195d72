//! Threads for work that computes: decoding, resizing, normalising.
//!
//! One pool for all flows, sized from the config, so that the sum of what is computed at once is bounded however many
//! flows there are. The threads run at a lower priority than the ones that serve requests (nice 5): under full load a
//! health check still answers within milliseconds.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::fault::BoxError;

type Job = Box<dyn FnOnce() + Send>;

/// How much further back in the scheduler's line computing threads stand, in nice levels.
const NICE: i32 = 5;

/// A bounded pool of computing threads; cheap to clone. The threads end with the last clone.
#[derive(Clone)]
pub struct Compute {
    jobs: mpsc::Sender<Job>,
}

impl Compute {
    /// Starts `threads` threads (at least one).
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let (jobs, queue) = mpsc::channel::<Job>(threads);
        let queue = Arc::new(Mutex::new(queue));
        for index in 0..threads {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name(format!("compute-{index}")).spawn(move || work(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Runs `work` on a computing thread once one is free. If the caller is dropped while it waits, the work is not
    /// begun; if it is dropped later, the work ends unheard.
    ///
    /// # Errors
    /// If the work panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, BoxError> {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            if !answer.is_closed() {
                // A caller that gives up meanwhile needs no answer.
                let _ = answer.send(work());
            }
        };
        self.jobs.send(Box::new(job)).await.map_err(|_| "the computing threads are gone")?;
        answered.await.map_err(|_| "the computation panicked".into())
    }
}

/// Puts the calling thread behind those that serve requests. Best effort: a system that refuses only loses latency.
pub fn lower_priority() {
    // On Linux the priority of "this process" is that of the calling thread.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "thread priority unchanged");
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    lower_priority();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        // The answer channel closes when a job panics, which tells the caller.
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
        assert!(compute.run(|| panic!("on purpose")).await.is_err());
        assert!(compute.run(|| panic!("on purpose")).await.is_err());
        assert!(compute.run(|| panic!("on purpose")).await.is_err());
        assert_eq!(compute.run(|| 6 * 7).await.unwrap(), 42);
    }
}
