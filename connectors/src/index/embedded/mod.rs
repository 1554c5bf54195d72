//! The embedded vector index: qdrant-edge in this process, for one machine.
//!
//! Writes go through a bounded queue to one writer thread (`writer_thread.rs`). Searches run beside it on blocking
//! threads, a limited number at a time, and never wait for the queue. One folder per collection; a lock file keeps a
//! second process out.

mod collection;
mod collection_header;
mod limits;
mod shard;
mod writer_thread;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use pipeline::{BoxError, Hit, IndexError, Nearest, Point, Space, Token, VectorIndex};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::collection::Collection;
use self::collection_header::CollectionHeader;
use self::writer_thread::{Collections, UpsertRequest, WriterCommand, WriterThread};
use super::checks::{check_name, check_points, check_space, check_vector, unavailable};
use super::error::OpenError;
use super::kind::IndexKind;

pub use self::limits::Limits;

/// `kind = "embedded"`.
pub(super) const KIND: IndexKind = IndexKind {
    name: "embedded",
    keys: &[],
    shared: false,
    is_implied_by: |spec| spec.url.is_none(),
    check: |_| Vec::new(),
    open: |_, data_dir| Ok(Arc::new(EmbeddedIndex::open(&data_dir.join("index"), Limits::default())?)),
};

/// Requests that wait for the writer thread; each holds its points.
const QUEUE: usize = 64;

/// Collections in a directory.
pub struct EmbeddedIndex {
    directory: PathBuf,
    limits: Limits,
    collections: Collections,
    commands: mpsc::Sender<WriterCommand>,
    /// Searches that run at once: one per core.
    searches: Arc<Semaphore>,
    /// Taken by the first `close`.
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Locked as long as the index is open.
    _lock: File,
}

impl EmbeddedIndex {
    /// Opens `directory` and every collection in it, creating it if it does not exist. Blocks.
    ///
    /// # Errors
    /// If the directory is in use by another process, or anything in it cannot be read.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, OpenError> {
        fs::create_dir_all(directory).map_err(|error| unusable(directory, &error))?;
        let lock = lock(directory)?;
        let collections = open_collections(directory)?;
        let writer = WriterThread {
            directory: directory.into(),
            limits,
            collections: Arc::clone(&collections),
            changes: Default::default(),
        };
        let (commands, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("index".into()).spawn(move || writer.run(queue));
        let thread = thread.map_err(|error| unusable(directory, &error))?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Ok(Self {
            directory: directory.into(),
            limits,
            collections,
            commands,
            searches: Arc::new(Semaphore::new(cores)),
            writer: Mutex::new(Some(thread)),
            _lock: lock,
        })
    }

    /// Bytes of a collection's log on the disk; 0 if there is no such collection.
    #[must_use]
    pub fn log_bytes(&self, collection: &str) -> u64 {
        self.collection(collection).map_or(0, |collection| collection.log_bytes())
    }

    fn collection(&self, name: &str) -> Option<Arc<Collection>> {
        self.collections.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// Opens every folder that holds a collection.
fn open_collections(directory: &Path) -> Result<Collections, OpenError> {
    let collections = Collections::default();
    for entry in fs::read_dir(directory).map_err(|error| unusable(directory, &error))? {
        let path = entry.map_err(|error| unusable(directory, &error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !path.is_dir() || Token::new(name).is_err() {
            continue;
        }
        // A folder without a header was being created when the process ended; no write to it was answered.
        let Some(header) = CollectionHeader::read(&path).map_err(|error| unusable(&path, &error))? else { continue };
        let collection = Collection::open(path.clone(), header).map_err(|error| unusable(&path, &error))?;
        collections.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), Arc::new(collection));
    }
    Ok(collections)
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> OpenError {
    OpenError::Directory { path: path.to_path_buf(), why: error.to_string() }
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(|error| unusable(&path, &error))?;
    let in_use = "another process has this index open: stop it, or give this one another --data-dir";
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| unusable(&path, &in_use))?;
    Ok(file)
}

const CLOSED: &str = "the index is closed";

#[async_trait]
impl VectorIndex for EmbeddedIndex {
    async fn upsert(&self, collection: &str, space: &Space, points: Vec<Point>) -> Result<(), IndexError> {
        check_name(collection)?;
        check_points(space, &points)?;
        if let Some(existing) = self.collection(collection) {
            check_space(collection, existing.space(), space)?;
        }
        if points.is_empty() {
            return Ok(());
        }
        let (reply, outcome) = oneshot::channel();
        let upsert = UpsertRequest { collection: collection.into(), space: space.clone(), points, reply };
        self.commands.send(WriterCommand::Upsert(upsert)).await.map_err(|_| unavailable(CLOSED))?;
        outcome.await.map_err(|_| unavailable(CLOSED))?
    }

    async fn search(&self, collection: &str, space: &Space, nearest: Nearest<'_>) -> Result<Vec<Hit>, IndexError> {
        check_name(collection)?;
        check_vector(space, nearest.vector)?;
        if self.commands.is_closed() {
            return Err(unavailable(CLOSED));
        }
        let Some(existing) = self.collection(collection) else { return Ok(Vec::new()) };
        check_space(collection, existing.space(), space)?;
        if nearest.limit == 0 {
            return Ok(Vec::new());
        }
        let permit = Arc::clone(&self.searches).acquire_owned().await.map_err(unavailable)?;
        let (vector, limit) = (nearest.vector.to_vec(), nearest.limit);
        let tenant = nearest.tenant.map(str::to_owned);
        let found = tokio::task::spawn_blocking(move || {
            let found = existing.search(vector, limit, tenant);
            drop(permit);
            found
        });
        found.await.map_err(unavailable)?.map_err(unavailable)
    }

    async fn ready(&self) -> Result<(), BoxError> {
        if self.commands.is_closed() {
            return Err(CLOSED.into());
        }
        let (directory, limits, collections) = (self.directory.clone(), self.limits, Arc::clone(&self.collections));
        let checked = tokio::task::spawn_blocking(move || {
            limits.check_free_space(&directory, 0)?;
            let collections = collections.read().unwrap_or_else(PoisonError::into_inner);
            match collections.iter().find(|(_, collection)| !collection.is_open()) {
                Some((name, _)) => Err(format!("collection {name} failed and could not be reopened yet").into()),
                None => Ok(()),
            }
        });
        checked.await?
    }

    async fn close(&self) {
        // Fails if the index is closed already.
        let _ = self.commands.send(WriterCommand::Close).await;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        let joined = tokio::task::spawn_blocking(move || writer.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the writer thread of the index panicked; points it had answered are stored");
        }
    }
}
