//! The pool of LibreOffice workers: a supervisor of worker processes with one document at a time each, and one spare.
//!
//! A task takes a permit (there are as many as conversions may run at once, in order of arrival), then an idle worker.
//! When a worker ends, the next task finds the spare, and the respawn task starts another. A document that crashes a
//! worker is tried once more on another one; after the second crash it is refused for a while (`quarantine.rs`).

mod config;
mod dispatch;
mod job_folder;
mod metrics;
mod pool_state;
mod quarantine;
mod recycle;
mod respawn;
mod spawner;
mod task;
mod worker_process;

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pipeline::BoxError;
use pipeline::documents::{Conversion, ConvertError, Converted, Converter, Finishing, Named};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use config::{PoolConfig, Recycle};
pub use metrics::PoolMetrics;
pub use recycle::RestartReason;
pub use worker_process::StartError;

use self::dispatch::TaskResult;
use self::metrics::MetricsRecorder;
use self::pool_state::{PoolState, StartRequest};
use self::spawner::Spawner;
use self::task::Task;
use self::worker_process::Worker;
use super::sandbox_selftest::SandboxLeak;

/// The state of the workers' sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containment {
    /// Layers that the kernel does not support, with the reason.
    pub missing: Vec<String>,
    /// What the self-test found open; empty unless `require_sandbox` is off.
    pub leaks: Vec<SandboxLeak>,
}

/// Converts documents in worker processes.
pub struct Pool {
    state: Arc<PoolState>,
    /// Taken when the pool closes.
    respawn: Mutex<Option<RespawnTask>>,
    version: String,
    containment: Containment,
}

/// The task that restarts workers. Dropping it aborts it; otherwise the workers of a dropped pool would stay alive.
struct RespawnTask(JoinHandle<()>);

impl Drop for RespawnTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pool {
    /// Starts the first worker, then the others in the background.
    ///
    /// # Errors
    /// If LibreOffice is missing, the sandbox leaks, or a system call fails.
    pub async fn start(config: PoolConfig) -> Result<Self, StartError> {
        std::fs::create_dir_all(&config.work_folder)?;
        let root = tempfile::Builder::new().prefix("office-").tempdir_in(&config.work_folder)?;
        worker_process::place_canary(root.path())?;
        let spawner = Spawner::start()?;
        let first = Worker::start(&config, root.path(), &spawner).await?;
        let version = first.version.clone();
        let containment = Containment { missing: first.missing.clone(), leaks: first.leaks.clone() };
        log_containment(&containment);
        let all = config.workers + 1;
        let (returned, idle) = mpsc::channel(all);
        let (start_requests, requests) = mpsc::channel(all);
        let state = Arc::new(PoolState {
            run_permits: Semaphore::new(config.workers),
            queue: Semaphore::new(config.workers + config.queue),
            idle: AsyncMutex::new(idle),
            returned: returned.clone(),
            start_requests,
            quarantine: Mutex::default(),
            metrics: MetricsRecorder::default(),
            crash_loop_until: Mutex::default(),
            job_numbers: AtomicU64::new(0),
            config,
            root,
            spawner,
        });
        state.metrics.worker_started(first.pid());
        let full = |_| StartError::System(io::Error::other("no room for a worker"));
        returned.try_send(first).map_err(|_| full(()))?;
        for _ in 1..all {
            state.start_requests.try_send(StartRequest::Normal).map_err(|_| full(()))?;
        }
        let task = RespawnTask(tokio::spawn(respawn::respawn_workers(state.clone(), requests, returned)));
        Ok(Self { state, respawn: Mutex::new(Some(task)), version, containment })
    }

    /// LibreOffice's version, for example `7.4.7.2`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The state of the workers' sandbox.
    #[must_use]
    pub fn containment(&self) -> &Containment {
        &self.containment
    }

    /// State and counters of the pool.
    #[must_use]
    pub fn metrics(&self) -> PoolMetrics {
        self.state.metrics.snapshot()
    }

    /// Whether workers are in a crash loop, so that new ones are started with a backoff.
    #[must_use]
    pub fn is_crash_looping(&self) -> bool {
        let until = *self.state.crash_loop_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

#[async_trait]
impl Converter for Pool {
    async fn convert(&self, conversion: Conversion) -> Result<Converted, ConvertError> {
        check(&conversion, &self.state.config)?;
        Ok(self.run(Task::Convert(conversion)).await?.converted)
    }

    async fn finish(&self, finishing: Finishing) -> Result<Vec<Named>, ConvertError> {
        let (size, limit) =
            (finishing.files.iter().map(|(_, file)| file.len() as u64).sum(), self.state.config.largest_output);
        if size > limit {
            return Err(ConvertError::TooLarge { size, limit });
        }
        let names: Vec<String> = finishing.files.iter().map(|(name, _)| name.clone()).collect();
        let result = self.run(Task::Finish(finishing)).await?;
        let unexpected = || ConvertError::Storage("a worker returned unexpected file names".into());
        let named = result
            .names
            .iter()
            .zip(result.converted.files)
            .map(|(file, bytes)| Some((result_name(file, &names)?, bytes)));
        named.collect::<Option<_>>().ok_or_else(unexpected)
    }

    fn workers(&self) -> usize {
        self.state.config.workers
    }

    async fn ready(&self) -> Result<(), BoxError> {
        if self.is_crash_looping() {
            return Err("the LibreOffice workers are in a crash loop".into());
        }
        if self.metrics().processes.is_empty() { Err("no LibreOffice worker is alive".into()) } else { Ok(()) }
    }

    /// When this returns, no worker process and no document is left.
    async fn close(&self) {
        self.state.queue.close();
        let permits = u32::try_from(self.state.config.workers).unwrap_or(u32::MAX);
        drop(self.state.run_permits.acquire_many(permits).await);
        self.state.run_permits.close();
        let task = self.respawn.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task {
            task.0.abort();
            drop((&mut task.0).await);
        }
        let mut idle = self.state.idle.lock().await;
        while let Ok(worker) = idle.try_recv() {
            self.state.metrics.worker_ended(worker.pid(), None);
            worker.stop().await;
        }
        let root = self.state.root.path().to_path_buf();
        drop(tokio::task::spawn_blocking(move || std::fs::remove_dir_all(root)).await);
    }
}

impl Pool {
    /// Runs the task in a Tokio task of its own, so that a caller that goes away does not abandon a worker in mid-job.
    async fn run(&self, task: Task) -> Result<TaskResult, ConvertError> {
        tokio::spawn(dispatch::run_task(self.state.clone(), task)).await.unwrap_or(Err(ConvertError::Stopping))
    }
}

/// `letter` for `done-0.pdf`, `letter_2` for `done-0_2.pdf`, where `letter` is the first of `names`.
fn result_name(file: &str, names: &[String]) -> Option<String> {
    let number = file.strip_prefix("done-")?.strip_suffix(".pdf")?;
    let (number, part) = number.split_once('_').map_or((number, None), |(number, part)| (number, Some(part)));
    let name = names.get(number.parse::<usize>().ok()?)?;
    match part {
        None => Some(name.clone()),
        Some(part) => Some(format!("{name}_{}", part.parse::<u32>().ok()?)),
    }
}

/// Checks that need no worker.
fn check(conversion: &Conversion, config: &PoolConfig) -> Result<(), ConvertError> {
    let (from, to) = (conversion.from, conversion.to);
    let size = conversion.input.len() as u64;
    if !from.becomes(to) {
        return Err(ConvertError::UnsupportedConversion { from, to });
    }
    if size > config.largest_input {
        return Err(ConvertError::TooLarge { size, limit: config.largest_input });
    }
    Ok(conversion.options.check(from, to)?)
}

fn log_containment(containment: &Containment) {
    for layer in &containment.missing {
        tracing::warn!(layer, "the sandbox of the document workers lacks a layer");
    }
    for leak in &containment.leaks {
        tracing::error!(
            ?leak,
            "the sandbox of the document workers leaks, and the config accepts it (require_sandbox = false)"
        );
    }
}
