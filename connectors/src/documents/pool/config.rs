//! How many workers, how long for, and what holds them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::super::protocol::Engine;
use super::super::sandbox::{Layers, Limits};

/// How a pool is made.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// The program with the hidden subcommand, and the subcommand: `caudal office-worker`. The supervisor's process id is
    /// added.
    pub worker: (PathBuf, Vec<OsString>),
    /// Which engine.
    pub engine: Engine,
    /// Conversions at the same time. One more worker than this is kept warm.
    pub workers: usize,
    /// Conversions that may wait for a worker.
    pub queue: usize,
    /// Longest conversion.
    pub job_timeout: Duration,
    /// Longest time until a new worker is ready.
    pub start_timeout: Duration,
    /// Largest document, in bytes.
    pub largest_input: u64,
    /// Largest result, in bytes.
    pub largest_output: u64,
    /// Most pages of a result.
    pub most_pages: u32,
    /// When a worker is replaced.
    pub recycle: Recycle,
    /// How long a document that killed two workers is refused.
    pub quarantine: Duration,
    /// A folder for profiles and documents, best in memory; a folder of its own is made in it.
    pub work_folder: PathBuf,
    /// What holds a worker; all of it, but for tests.
    pub layers: Layers,
    /// Bounds of a worker process.
    pub limits: Limits,
    /// Refuse to start while the self-test finds a hole. Off, the pool says so and works: for kernels without the means.
    pub insist: bool,
}

/// When a worker is replaced by a fresh one, after it has answered.
#[derive(Clone, Copy, Debug)]
pub struct Recycle {
    /// After about this many conversions (each worker draws a fifth more or less).
    pub jobs: u32,
    /// Once it has more resident memory than this, in bytes.
    pub rss: u64,
    /// Once conversions of one class take this many times as long as when it was fresh.
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
    /// The usual bounds, for LibreOffice as Debian installs it, a worker per processor: an engine rests a third of its time,
    /// and the flow's own work on a document is a tenth of the engine's.
    #[must_use]
    pub fn new(worker: (PathBuf, Vec<OsString>), work_folder: PathBuf) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            worker,
            engine: Engine::LibreOffice("/usr/lib/libreoffice".into()),
            workers: processors,
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
            insist: true,
        }
    }
}
