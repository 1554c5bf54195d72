//! State that the parts of a pool share.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use tempfile::TempDir;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc};
use tokio::time::Instant;

use super::config::PoolConfig;
use super::metrics::MetricsRecorder;
use super::quarantine::Quarantine;
use super::spawner::Spawner;
use super::worker_process::Worker;

/// A request to start a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartRequest {
    /// For a new pool, or for a worker that had finished a job.
    Normal,
    /// For a worker that crashed before its first job was done: the next may crash too.
    AfterEarlyCrash,
}

/// State that the parts of a pool share.
pub(super) struct PoolState {
    pub(super) config: PoolConfig,
    /// Holds the folders of all workers.
    pub(super) root: TempDir,
    pub(super) spawner: Spawner,
    /// One permit per task that may run; closed once the pool is.
    pub(super) run_permits: Semaphore,
    /// One permit per task that may run or wait; closed first when the pool closes.
    pub(super) queue: Semaphore,
    pub(super) idle: AsyncMutex<mpsc::Receiver<Worker>>,
    /// Makes a worker idle.
    pub(super) returned: mpsc::Sender<Worker>,
    pub(super) start_requests: mpsc::Sender<StartRequest>,
    pub(super) quarantine: Mutex<Quarantine>,
    pub(super) metrics: MetricsRecorder,
    /// End of the crash loop, if there was one.
    pub(super) crash_loop_until: Mutex<Option<Instant>>,
    /// Number of the next job, which names its folder.
    pub(super) job_numbers: AtomicU64,
}
