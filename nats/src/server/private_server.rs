//! The private nats-server: a child process with a store of its own, on loopback unless opened, gone when we are gone.
//!
//! Everything it needs lies under `data_dir/nats`: the generated config, keys (mode 600), log, and `jetstream/`, the store.
//! The store is locked by the child itself ([`guard()`]), because two servers on one store both start and both acknowledge
//! sequence 1. If the server dies first it is started again on the same port, so that clients find it.

mod config;
#[path = "parent_death_guard.rs"]
mod guard;
mod keys;
#[path = "server_thread.rs"]
mod supervise;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipeline::spec::ByteSize;
use tokio::sync::oneshot;

use crate::connection::{Access, Auth};
use crate::spec::NatsSpec;
pub use guard::{GuardError, guard};
use supervise::Supervisor;

/// How long the server may take to end after SIGTERM before it is killed. It takes 3 to 11 ms.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long a killed server may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How to run the private server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The `nats-server` program.
    pub program: PathBuf,
    /// What runs [`guard()`] in the child: usually our own program and its hidden subcommand. Empty: the server is started
    /// without lock and without being told of our death, for tests.
    pub launcher: Vec<OsString>,
    /// Directory of the product; the server uses `nats/` in it.
    pub data_dir: PathBuf,
    /// `[nats]`.
    pub spec: NatsSpec,
    /// Disk the streams need, from [`Topology::max_file`](crate::Topology::max_file); `[nats] max_file` overrides it.
    pub max_file: ByteSize,
}

/// Why the private server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another process has locked the store.
    #[error("data directory {} is in use by another caudal: stop that one, or give another --data-dir", .0.display())]
    InUse(PathBuf),
    /// A file or directory cannot be made or read.
    #[error("{} cannot be used", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key file holds no key.
    #[error("{} holds no nkey seed: remove it, and a new one is made", .0.display())]
    Key(PathBuf),
    /// The program cannot be run.
    #[error("{} cannot be started: run `make setup`, or set CAUDAL_NATS_SERVER", program.display())]
    Spawn {
        /// Which one.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server ended instead of starting.
    #[error("nats-server ended at start ({status}): {log}")]
    Ended {
        /// How it ended.
        status: String,
        /// The end of what it said.
        log: String,
    },
    /// The server did not say where it listens.
    #[error("nats-server did not start within {0:?}")]
    TimedOut(Duration),
}

/// A running private server. Dropped without [`stop`](Self::stop), it is killed.
pub struct PrivateServer {
    supervisor: Arc<Supervisor>,
    port: u16,
    access: Access,
    ended: Option<oneshot::Receiver<()>>,
}

impl PrivateServer {
    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    /// If the store is in use, the program is missing, or the server does not come up.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        let supervisor = Arc::new(Supervisor::default());
        let mut kill_if_dropped = Kill(Some(Arc::clone(&supervisor)));
        let (port, ended) = supervise::start(&supervisor, options.clone()).await?;
        kill_if_dropped.0 = None;
        let host = options.spec.listen.map_or_else(config::loopback, |listen| config::reachable(listen.ip()));
        let url = format!("nats://{}", std::net::SocketAddr::new(host, port));
        let auth = Auth::NkeySeed(keys::own_file(&config::directory(&options.data_dir)));
        Ok(Self { supervisor, port, access: Access { url, auth }, ended: Some(ended) })
    }

    /// Where it listens, and the key of this process.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Its port: the same after it was started again.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id; `None` while it is being started again.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.supervisor.pid()
    }

    /// Asks the server to end, waits, and kills it if that takes longer than 10 s.
    pub async fn stop(mut self) {
        let Some(mut ended) = self.ended.take() else { return };
        self.supervisor.stop(false);
        if tokio::time::timeout(STOP_LIMIT, &mut ended).await.is_err() {
            tracing::error!("nats-server does not end, it is killed");
            self.supervisor.stop(true);
            let _ = tokio::time::timeout(KILL_LIMIT, ended).await;
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        if self.ended.is_some() {
            self.supervisor.stop(true);
        }
    }
}

/// Kills a server whose start was given up.
struct Kill(Option<Arc<Supervisor>>);

impl Drop for Kill {
    fn drop(&mut self) {
        if let Some(supervisor) = &self.0 {
            supervisor.stop(true);
        }
    }
}
