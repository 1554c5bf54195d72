//! Configuration of the pool: workers, timeouts, limits, sandbox.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::super::protocol::Engine;
use super::super::sandbox::{Layers, Limits};

/// Configuration of a pool.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// The program with the hidden subcommand, and the subcommand: `caudal office-worker`. The supervisor's process id
    /// is added.
    pub worker: (PathBuf, Vec<OsString>),
    /// Which engine the workers run.
    pub engine: Engine,
    /// Conversions at the same time. There is one worker more, started ahead as a spare.
    pub workers: usize,
    /// Conversions that may wait for a worker.
    pub queue: usize,
    /// Timeout of a conversion.
    pub job_timeout: Duration,
    /// Timeout until a new worker is ready.
    pub start_timeout: Duration,
    /// Largest document, in bytes.
    pub largest_input: u64,
    /// Largest result, in bytes.
    pub largest_output: u64,
    /// Most pages of a result.
    pub most_pages: u32,
    /// When a worker is replaced.
    pub recycle: Recycle,
    /// How long a document that crashed two workers is refused.
    pub quarantine: Duration,
    /// Where the pool creates its folder for profiles and documents; best in memory.
    pub work_folder: PathBuf,
    /// Sandbox layers; all of them, except in tests.
    pub layers: Layers,
    /// Resource limits of a worker process.
    pub limits: Limits,
    /// Refuse to start if the self-test finds a leak. Off, the pool logs the leak and starts anyway: for kernels
    /// without the features.
    pub require_sandbox: bool,
}

/// When a worker is replaced after it has answered.
#[derive(Clone, Copy, Debug)]
pub struct Recycle {
    /// After about this many conversions (each worker gets up to a fifth more or less, at random).
    pub jobs: u32,
    /// Once it has more resident memory than this, in bytes.
    pub rss: u64,
    /// Once conversions of one class take this many times as long as the worker's first ones.
    pub slowdown: f64,
    /// At this age.
    pub age: Duration,
}

impl Default for Recycle {
    fn default() -> Self {
        Self { jobs: 100, rss: 400 << 20, slowdown: 1.5, age: Duration::from_hours(24) }
    }
}

impl PoolConfig {
    /// The defaults, for LibreOffice as Debian installs it. One worker per core: LibreOffice idles a third of its time,
    /// and the flow's own work on a document is a tenth of LibreOffice's.
    #[must_use]
    pub fn new(worker: (PathBuf, Vec<OsString>), work_folder: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            worker,
            engine: Engine::LibreOffice("/usr/lib/libreoffice".into()),
            workers: cores,
            queue: 64,
            job_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(60),
            largest_input: 32 << 20,
            largest_output: 50 << 20,
            most_pages: 500,
            recycle: Recycle::default(),
            quarantine: Duration::from_mins(10),
            work_folder,
            layers: Layers::default(),
            limits: Limits::default(),
            require_sandbox: true,
        }
    }
}
