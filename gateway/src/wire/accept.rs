//! The accept loop. Connections beyond the limit wait in the kernel's backlog; those of an address that has its share
//! are closed, because one address could otherwise take all of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Peer};
use super::tls::Tls;
use super::unread_body::Discards;
use crate::capacity::open_counts::{OpenCount, OpenCounts};
use crate::identity::caller::Client;
use crate::state::GatewayState;

/// Pause after the system refused a connection, for example because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections and hands their requests to a router.
pub struct Acceptor {
    app: Router,
    state: GatewayState,
    tls: Option<Arc<Tls>>,
    /// One permit per connection.
    permits: Arc<Semaphore>,
    /// Connections by address.
    counts: Arc<OpenCounts>,
    discards: Arc<Discards>,
    graceful: GracefulShutdown,
    /// Cancelled when the grace of a shutdown is over.
    abort: CancellationToken,
}

impl Acceptor {
    pub fn new(app: Router, state: GatewayState, tls: Option<Arc<Tls>>) -> Self {
        let (counts, graceful, abort) = (Arc::default(), GracefulShutdown::new(), CancellationToken::new());
        let permits = Arc::new(Semaphore::new(state.limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let discards = Arc::new(Discards::new(state.clone()));
        Self { app, state, tls, permits, counts, discards, graceful, abort }
    }

    /// Accepts connections until `shutdown`.
    pub async fn run(&self, listener: &TcpListener, shutdown: &CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.accept(listener) => {}
        }
    }

    /// Accepts connections until it is dropped. Cancel-safe.
    async fn accept(&self, listener: &TcpListener) {
        while let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => self.start(stream, peer, permit),
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Accepts what is on its way, then waits until every connection and task has ended, all for at most `grace`, and
    /// aborts the connections that are left.
    pub async fn drain(self, listener: TcpListener, grace: Duration) {
        let until = Instant::now() + grace;
        // The system resets connections that wait in its backlog when the listener is closed.
        tokio::select! {
            () = self.state.last_requests_taken() => {}
            () = self.accept(&listener) => {}
        }
        drop(listener);
        let Self { state, graceful, abort, .. } = self;
        let drained = async {
            graceful.shutdown().await;
            state.tasks.close();
            state.tasks.wait().await;
        };
        if timeout_at(until, drained).await.is_err() {
            tracing::warn!(?grace, "shutdown grace is over: remaining connections aborted");
        }
        abort.cancel();
    }

    /// Counts a connection of an address, if addresses are limited.
    ///
    /// # Errors
    /// The limit, if the address has reached it.
    fn count(&self, peer: IpAddr) -> Result<Option<OpenCount>, usize> {
        let limit = self.state.limits.connections_of(peer);
        match limit.filter(|_| !self.state.service.trusted_proxies.trusts(peer)) {
            Some(most) => self.counts.open(vec![(Client::of_address(peer), most)]).map(Some),
            None => Ok(None),
        }
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let count = match self.count(peer.ip()) {
            Ok(count) => count,
            Err(most) => {
                tracing::debug!(%peer, most, "connection closed: its address has reached its limit");
                return;
            }
        };
        let connection = Connection {
            app: self.app.clone(),
            state: self.state.clone(),
            tls: self.tls.clone(),
            peer: Peer(peer.ip()),
            discards: Arc::clone(&self.discards),
            watcher: self.graceful.watcher(),
        };
        let abort = self.abort.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = connection.run(stream) => {}
                () = abort.cancelled() => {}
            }
            drop((permit, count));
        });
    }
}
