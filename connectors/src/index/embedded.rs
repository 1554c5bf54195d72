//! The embedded index: qdrant-edge in this process, for one machine.
//!
//! Writes go through a bounded queue to the one thread that owns them (`owner.rs`); searches run beside them on blocking
//! threads, a limited number at a time, and never wait for the queue. One folder per collection; a lock file keeps a second
//! process out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use pipeline::{BoxError, Hit, IndexError, Nearest, Point, Space, Token, VectorIndex};
use rustix::fs::{FlockOperation, flock, statvfs};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::collection::Collection;
use super::owner::{Command, Owner, Shelf, Upsert};
use super::space::Header;
use super::{OpenError, check_name, check_points, check_space, check_vector, unavailable};

/// Requests that wait for the owner; each holds its points.
const QUEUE: usize = 64;

/// What the index keeps clear of.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Free bytes of the file system below which nothing is written: the engine maps files that grow, and a write into a
    /// mapped file on a full disk kills the process.
    pub free_bytes: u64,
    /// Bytes of a collection's log from which on it is rebuilt, if the log is also a multiple of the points.
    pub log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { free_bytes: 256 << 20, log_bytes: 256 << 20 }
    }
}

impl Limits {
    /// Whether `growth` more bytes would leave enough free.
    pub(super) fn check_free_space(&self, path: &Path, growth: u64) -> Result<(), BoxError> {
        let status = statvfs(path)?;
        let free = status.f_bavail.saturating_mul(status.f_frsize);
        let needed = self.free_bytes.saturating_add(growth);
        if free >= needed {
            return Ok(());
        }
        let path = path.display();
        Err(format!("only {free} bytes are free under {path}, the index needs {needed}: free some space").into())
    }
}

/// Collections in a directory.
pub struct EmbeddedIndex {
    directory: PathBuf,
    limits: Limits,
    shelf: Shelf,
    commands: mpsc::Sender<Command>,
    searches: Arc<Semaphore>,
    owner: Mutex<Option<JoinHandle<()>>>,
    /// Held as long as the index is open.
    _lock: File,
}

impl EmbeddedIndex {
    /// Opens `directory`, making it if need be, and every collection in it. Blocks.
    ///
    /// # Errors
    /// If the directory is in use by another process, or anything in it cannot be read.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, OpenError> {
        let wrong = |path: &Path, error: &dyn std::fmt::Display| OpenError::Directory {
            path: path.to_path_buf(),
            why: error.to_string(),
        };
        fs::create_dir_all(directory).map_err(|error| wrong(directory, &error))?;
        let lock = lock(directory)?;
        let shelf = Shelf::default();
        for entry in fs::read_dir(directory).map_err(|error| wrong(directory, &error))? {
            let path = entry.map_err(|error| wrong(directory, &error))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if !path.is_dir() || Token::new(name).is_err() {
                continue;
            }
            // A folder without a header was being made when the process ended: nothing was promised of it.
            let Some(header) = Header::read(&path).map_err(|error| wrong(&path, &error))? else { continue };
            let collection = Collection::open(path.clone(), header).map_err(|error| wrong(&path, &error))?;
            shelf.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), Arc::new(collection));
        }
        let owner =
            Owner { directory: directory.into(), limits, shelf: Arc::clone(&shelf), changed: Default::default() };
        let (commands, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("index".into()).spawn(move || owner.run(queue));
        let thread = thread.map_err(|error| wrong(directory, &error))?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Ok(Self {
            directory: directory.into(),
            limits,
            shelf,
            commands,
            searches: Arc::new(Semaphore::new(cores)),
            owner: Mutex::new(Some(thread)),
            _lock: lock,
        })
    }

    /// Bytes of a collection's log on the disk; 0 if there is no such collection.
    #[must_use]
    pub fn log_bytes(&self, collection: &str) -> u64 {
        self.collection(collection).map_or(0, |collection| collection.log_bytes())
    }

    fn collection(&self, name: &str) -> Option<Arc<Collection>> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("lock");
    let wrong = |why: String| OpenError::Directory { path: path.clone(), why };
    let file = File::create(&path).map_err(|error| wrong(error.to_string()))?;
    let in_use = "another process has this index open: stop it, or give this one another --data-dir";
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| wrong(in_use.into()))?;
    Ok(file)
}

const CLOSED: &str = "the index is closed";

#[async_trait]
impl VectorIndex for EmbeddedIndex {
    async fn upsert(&self, collection: &str, space: &Space, points: Vec<Point>) -> Result<(), IndexError> {
        check_name(collection)?;
        check_points(space, &points)?;
        if let Some(known) = self.collection(collection) {
            check_space(collection, known.space(), space)?;
        }
        if points.is_empty() {
            return Ok(());
        }
        let (reply, outcome) = oneshot::channel();
        let upsert = Upsert { collection: collection.into(), space: space.clone(), points, reply };
        self.commands.send(Command::Upsert(upsert)).await.map_err(|_| unavailable(CLOSED))?;
        outcome.await.map_err(|_| unavailable(CLOSED))?
    }

    async fn search(&self, collection: &str, space: &Space, nearest: Nearest<'_>) -> Result<Vec<Hit>, IndexError> {
        check_name(collection)?;
        check_vector(space, nearest.vector)?;
        if self.commands.is_closed() {
            return Err(unavailable(CLOSED));
        }
        let Some(known) = self.collection(collection) else { return Ok(Vec::new()) };
        check_space(collection, known.space(), space)?;
        if nearest.limit == 0 {
            return Ok(Vec::new());
        }
        let permit = Arc::clone(&self.searches).acquire_owned().await.map_err(unavailable)?;
        let (vector, limit) = (nearest.vector.to_vec(), nearest.limit);
        let tenant = nearest.tenant.map(str::to_owned);
        let found = tokio::task::spawn_blocking(move || {
            let found = known.search(vector, limit, tenant);
            drop(permit);
            found
        });
        found.await.map_err(unavailable)?.map_err(unavailable)
    }

    async fn ready(&self) -> Result<(), BoxError> {
        if self.commands.is_closed() {
            return Err(CLOSED.into());
        }
        let (directory, limits, shelf) = (self.directory.clone(), self.limits, Arc::clone(&self.shelf));
        let looked = tokio::task::spawn_blocking(move || {
            limits.check_free_space(&directory, 0)?;
            let shelf = shelf.read().unwrap_or_else(PoisonError::into_inner);
            match shelf.iter().find(|(_, collection)| !collection.is_open()) {
                Some((name, _)) => Err(format!("collection {name} failed and could not be reopened yet").into()),
                None => Ok(()),
            }
        });
        looked.await?
    }

    async fn close(&self) {
        // Closed already if this fails.
        let _ = self.commands.send(Command::Close).await;
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(owner) = owner else { return };
        let joined = tokio::task::spawn_blocking(move || owner.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the index's thread panicked; what it had answered is kept");
        }
    }
}
