//! The accept loop: bounded connections, and a shutdown that drains. Connections beyond the limit wait in the kernel's
//! backlog; those of an address that has its share are closed, or it could have all and let everybody else wait.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::connection::{Connection, Peer};
use crate::identity::caller::Client;
use crate::limit::{Counted, Counts};
use crate::pace::SAMPLE_PERIOD;
use crate::router::router;
use crate::state::GatewayState;
use crate::tls::Tls;

/// Pause after the system refused a connection, for example because files ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where clients come in.
pub struct Door {
    /// Bound.
    pub listener: TcpListener,
    /// The certificate, where they must speak TLS.
    pub tls: Option<Tls>,
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Self {
        Self { listener, tls: None }
    }
}

/// Serves until `shutdown`, then lets requests in work finish for the service's grace. Event streams end at once, their
/// clients resume elsewhere; answers that are still waited for turn into 202 at half of the grace.
pub async fn serve(door: impl Into<Door>, state: GatewayState, shutdown: CancellationToken) {
    let Door { listener, tls } = door.into();
    let grace = state.service.grace();
    state.identity.start(&shutdown);
    let server = Server {
        app: router(state.clone()),
        state,
        tls: tls.map(Arc::new),
        counts: Arc::default(),
        graceful: GracefulShutdown::new(),
        cut: CancellationToken::new(),
    };
    let sampler = tokio::spawn(sample(server.state.clone()));
    let renewal = server.tls.clone().map(|tls| tokio::spawn(async move { tls.renew().await }));
    server.accept(listener, &shutdown).await;
    server.state.closing.cancel();
    let Server { state, graceful, cut, .. } = server;
    let drained = async {
        graceful.shutdown().await;
        state.tasks.close();
        state.tasks.wait().await;
    };
    if tokio::time::timeout(grace, drained).await.is_err() {
        tracing::warn!(?grace, "connections cut: the grace of the shutdown has passed");
    }
    cut.cancel();
    sampler.abort();
    renewal.inspect(|renewal| renewal.abort());
}

/// Samples between two sweeps of the rate limits.
const SWEEP_TICKS: u64 = 60;

/// Takes a sample of every flow's counters once a second, and now and then forgets clients that rest.
async fn sample(state: GatewayState) {
    let mut ticks = tokio::time::interval(SAMPLE_PERIOD);
    for count in 1_u64.. {
        ticks.tick().await;
        if count.is_multiple_of(SWEEP_TICKS) {
            state.classes.sweep();
            state.failures.sweep();
        }
        state.pace.sample().await;
    }
}

struct Server {
    app: Router,
    state: GatewayState,
    tls: Option<Arc<Tls>>,
    /// Connections by address.
    counts: Arc<Counts>,
    graceful: GracefulShutdown,
    /// Cancelled when the grace has passed.
    cut: CancellationToken,
}

impl Server {
    async fn accept(&self, listener: TcpListener, shutdown: &CancellationToken) {
        let places = Arc::new(Semaphore::new(self.state.limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        loop {
            let place = tokio::select! {
                () = shutdown.cancelled() => return,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.start(stream, peer, place),
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The place of a connection among those of its address, where these are bounded.
    ///
    /// # Errors
    /// The bound, where they are as many already.
    fn place_of(&self, peer: IpAddr) -> Result<Option<Counted>, usize> {
        let bound = self.state.limits.connections_of(peer);
        match bound.filter(|_| !self.state.service.trusted_proxies.trusts(peer)) {
            Some(most) => self.counts.count(vec![(Client::of_address(peer), most)]).map(Some),
            None => Ok(None),
        }
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let counted = match self.place_of(peer.ip()) {
            Ok(counted) => counted,
            Err(most) => {
                tracing::debug!(%peer, most, "connection closed: its address has as many as it may");
                return;
            }
        };
        let connection = Connection {
            app: self.app.clone(),
            state: self.state.clone(),
            tls: self.tls.clone(),
            peer: Peer(peer.ip()),
            watcher: self.graceful.watcher(),
        };
        let cut = self.cut.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = connection.run(stream) => {}
                () = cut.cancelled() => {}
            }
            drop((place, counted));
        });
    }
}
