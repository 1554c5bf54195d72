//! The private server as its owner sees it: start, address, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::access::{Access, Auth};
use crate::server::error::ServerError;
use crate::server::options::ServerOptions;
use crate::server::restarter::Restarter;
use crate::server::supervisor::Supervisor;
use crate::server::{config, keys, server_thread};

/// How long the server may take to end after SIGTERM before it is killed. It takes 3 to 11 ms.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a killed server may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A running private server. Dropped without [`stop`](Self::stop), it is killed.
pub struct PrivateServer {
    supervisor: Arc<Supervisor>,
    port: u16,
    access: Access,
    restarter: Restarter,
    ended: Option<oneshot::Receiver<()>>,
}

impl PrivateServer {
    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    /// If the store is in use, the program is missing, or the server does not come up.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        let supervisor = Arc::new(Supervisor::default());
        let mut kill_on_drop = KillOnDrop(Some(Arc::clone(&supervisor)));
        let (port, ended) = server_thread::start(&supervisor, options.clone()).await?;
        kill_on_drop.0 = None;
        let host = options.spec.listen.map_or_else(config::loopback, |listen| config::reachable(listen.ip()));
        let url = format!("nats://{}", SocketAddr::new(host, port));
        let directory = config::directory(&options.data_dir);
        let auth = Auth::NkeySeed(keys::own_file(&directory));
        let restarter = Restarter::new(Arc::clone(&supervisor), directory);
        Ok(Self { supervisor, port, access: Access { url, auth }, restarter, ended: Some(ended) })
    }

    /// Its address, and the key of this process.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Restarts it where that is the only cure, for [`ConnectOptions`](crate::ConnectOptions).
    #[must_use]
    pub fn restarter(&self) -> Restarter {
        self.restarter.clone()
    }

    /// Its port, which stays the same when the server is restarted.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id; `None` while it is being restarted.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.supervisor.pid()
    }

    /// Sends SIGTERM, waits for the end, and kills the server if that takes longer than 10 s.
    pub async fn stop(mut self) {
        let Some(mut ended) = self.ended.take() else { return };
        self.supervisor.stop(false);
        if tokio::time::timeout(STOP_TIMEOUT, &mut ended).await.is_err() {
            tracing::error!("nats-server did not end in time, killing it");
            self.supervisor.stop(true);
            let _ = tokio::time::timeout(KILL_TIMEOUT, ended).await;
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

/// Kills a server whose start was cancelled.
struct KillOnDrop(Option<Arc<Supervisor>>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(supervisor) = &self.0 {
            supervisor.stop(true);
        }
    }
}
