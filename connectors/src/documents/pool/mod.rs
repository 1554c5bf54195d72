//! The supervisor: workers, one document at a time each, one more than work at once kept warm.
//!
//! A conversion takes a seat (there are as many as conversions may run at once, first come first served), then an idle
//! worker. Whatever ends a worker, the next conversion finds the spare, and the keeper starts another. A document that kills
//! a worker is tried once more on another one; the second time it is refused for a while.

mod config;
mod figures;
mod jobs;
mod keeper;
mod process;
mod quarantine;
mod recycle;
mod run;
mod spawner;
mod work;

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pipeline::BoxError;
use pipeline::documents::{Conversion, ConvertError, Converted, Converter, Finishing, Named};
use tempfile::TempDir;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use config::{PoolConfig, Recycle};
pub use figures::Snapshot;
pub use process::StartError;
pub use recycle::Reason;

use self::figures::Figures;
use self::keeper::Vacancy;
use self::process::Worker;
use self::quarantine::Quarantine;
use self::run::Made;
use self::spawner::Spawner;
use self::work::Work;
use super::selftest::Hole;

/// What holds the workers, and what does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containment {
    /// Layers that the kernel does not offer, with the reason.
    pub missing: Vec<String>,
    /// What the self-test could do; empty unless the pool was told not to insist.
    pub holes: Vec<Hole>,
}

/// What all parts of a pool share.
struct Shared {
    config: PoolConfig,
    root: TempDir,
    spawner: Spawner,
    seats: Semaphore,
    queue: Semaphore,
    idle: AsyncMutex<mpsc::Receiver<Worker>>,
    returned: mpsc::Sender<Worker>,
    vacancies: mpsc::Sender<Vacancy>,
    quarantine: Mutex<Quarantine>,
    figures: Figures,
    /// Until when workers count as dying one after the other.
    failing: Mutex<Option<Instant>>,
    jobs: AtomicU64,
}

/// Converts documents in worker processes.
pub struct Pool {
    shared: Arc<Shared>,
    /// Taken when the pool closes.
    keeper: Mutex<Option<Keeper>>,
    version: String,
    containment: Containment,
}

/// The task that starts workers; without an end to it, it would keep a dropped pool's workers alive.
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pool {
    /// Starts the first worker, and the others behind it.
    ///
    /// # Errors
    /// If the engine is missing, the sandbox leaks, or the machine refuses something: each says what to do.
    pub async fn start(config: PoolConfig) -> Result<Self, StartError> {
        std::fs::create_dir_all(&config.work_folder)?;
        let root = tempfile::Builder::new().prefix("office-").tempdir_in(&config.work_folder)?;
        process::place_canary(root.path())?;
        let spawner = Spawner::start()?;
        let first = Worker::start(&config, root.path(), &spawner).await?;
        let version = first.version.clone();
        let containment = Containment { missing: first.missing.clone(), holes: first.holes.clone() };
        warn_of(&containment);
        let all = config.workers + 1;
        let (returned, idle) = mpsc::channel(all);
        let (vacancies, vacant) = mpsc::channel(all);
        let shared = Arc::new(Shared {
            seats: Semaphore::new(config.workers),
            queue: Semaphore::new(config.workers + config.queue),
            idle: AsyncMutex::new(idle),
            returned: returned.clone(),
            vacancies,
            quarantine: Mutex::default(),
            figures: Figures::default(),
            failing: Mutex::default(),
            jobs: AtomicU64::new(0),
            config,
            root,
            spawner,
        });
        shared.figures.born(first.pid());
        let full = |_| StartError::System(io::Error::other("no room for a worker"));
        returned.try_send(first).map_err(|_| full(()))?;
        for _ in 1..all {
            shared.vacancies.try_send(Vacancy::Ordinary).map_err(|_| full(()))?;
        }
        let keeper = Keeper(tokio::spawn(keeper::keep(shared.clone(), vacant, returned)));
        Ok(Self { shared, keeper: Mutex::new(Some(keeper)), version, containment })
    }

    /// Of the engine, for example `7.4.7.2`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What holds the workers.
    #[must_use]
    pub fn containment(&self) -> &Containment {
        &self.containment
    }

    /// What the pool has counted.
    #[must_use]
    pub fn figures(&self) -> Snapshot {
        self.shared.figures.snapshot()
    }

    /// Whether workers keep dying before they are of any use, so that new ones are started only slowly.
    #[must_use]
    pub fn failing(&self) -> bool {
        let until = *self.shared.failing.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

#[async_trait]
impl Converter for Pool {
    async fn convert(&self, conversion: Conversion) -> Result<Converted, ConvertError> {
        check(&conversion, &self.shared.config)?;
        Ok(self.run(Work::Convert(conversion)).await?.converted)
    }

    async fn finish(&self, finishing: Finishing) -> Result<Vec<Named>, ConvertError> {
        let (size, limit) =
            (finishing.files.iter().map(|(_, file)| file.len() as u64).sum(), self.shared.config.largest_output);
        if size > limit {
            return Err(ConvertError::TooLarge { size, limit });
        }
        let names: Vec<String> = finishing.files.iter().map(|(name, _)| name.clone()).collect();
        let made = self.run(Work::Finish(finishing)).await?;
        let strange = || ConvertError::Storage("a worker named its files in its own way".into());
        let named =
            made.names.iter().zip(made.converted.files).map(|(file, bytes)| Some((named(file, &names)?, bytes)));
        named.collect::<Option<_>>().ok_or_else(strange)
    }

    fn workers(&self) -> usize {
        self.shared.config.workers
    }

    async fn ready(&self) -> Result<(), BoxError> {
        if self.failing() {
            return Err("workers of the document engine keep dying".into());
        }
        if self.figures().processes.is_empty() {
            Err("no worker of the document engine is alive".into())
        } else {
            Ok(())
        }
    }

    /// When this returns, no process and no document is left.
    async fn close(&self) {
        self.shared.queue.close();
        let seats = u32::try_from(self.shared.config.workers).unwrap_or(u32::MAX);
        drop(self.shared.seats.acquire_many(seats).await);
        self.shared.seats.close();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut keeper) = keeper {
            keeper.0.abort();
            drop((&mut keeper.0).await);
        }
        let mut idle = self.shared.idle.lock().await;
        while let Ok(worker) = idle.try_recv() {
            self.shared.figures.gone(worker.pid(), None);
            worker.stop().await;
        }
        let root = self.shared.root.path().to_path_buf();
        drop(tokio::task::spawn_blocking(move || std::fs::remove_dir_all(root)).await);
    }
}

impl Pool {
    /// In a task of its own, so that no caller that goes away leaves a worker in the middle of something.
    async fn run(&self, work: Work) -> Result<Made, ConvertError> {
        tokio::spawn(run::run(self.shared.clone(), work)).await.unwrap_or(Err(ConvertError::Stopping))
    }
}

/// `letter` for `done-0.pdf`, `letter_2` for `done-0_2.pdf`, where `letter` is the first of `names`.
fn named(file: &str, names: &[String]) -> Option<String> {
    let number = file.strip_prefix("done-")?.strip_suffix(".pdf")?;
    let (number, part) = number.split_once('_').map_or((number, None), |(number, part)| (number, Some(part)));
    let name = names.get(number.parse::<usize>().ok()?)?;
    match part {
        None => Some(name.clone()),
        Some(part) => Some(format!("{name}_{}", part.parse::<u32>().ok()?)),
    }
}

/// What can be said without a worker.
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

fn warn_of(containment: &Containment) {
    for layer in &containment.missing {
        tracing::warn!(layer, "the sandbox of the document engine lacks a layer");
    }
    for hole in &containment.holes {
        tracing::error!(?hole, "the sandbox of the document engine leaks, and the config accepts it");
    }
}
