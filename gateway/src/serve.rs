//! The accept loop: bounded connections with time limits on every step, and a shutdown that drains.
//!
//! A connection's first byte must come within half of `header_ms`, each request's headers within `header_ms`; headers are
//! within the limits of their number and size. Connections beyond the limit wait in the kernel's backlog.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::pace::SAMPLE_PERIOD;
use crate::router::router;
use crate::socket::{Protocol, Socket, sniff};
use crate::spec::LimitsSpec;
use crate::state::GatewayState;

/// Buffer of an HTTP/1 connection: the size of the chunks in which uploads arrive.
const BUFFER_BYTES: usize = 64 << 10;

/// Pause after the system refused a connection, for example because files ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The address of the client, as an extension of its requests.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Serves until `shutdown`, then lets requests in work finish for the service's grace. Event streams end at once, their
/// clients resume elsewhere; answers that are still waited for turn into 202 at half of the grace.
pub async fn serve(listener: TcpListener, state: GatewayState, shutdown: CancellationToken) {
    let grace = state.service.grace();
    state.identity.start(&shutdown);
    let server =
        Server { app: router(state.clone()), state, graceful: GracefulShutdown::new(), cut: CancellationToken::new() };
    let sampler = tokio::spawn(sample(server.state.clone()));
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

    fn start(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let connection = Connection {
            app: self.app.clone(),
            state: self.state.clone(),
            peer: Peer(peer.ip()),
            watcher: self.graceful.watcher(),
        };
        let cut = self.cut.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = connection.run(stream) => {}
                () = cut.cancelled() => {}
            }
            drop(place);
        });
    }
}

struct Connection {
    app: Router,
    state: GatewayState,
    peer: Peer,
    watcher: Watcher,
}

impl Connection {
    /// Runs until either side closes. Errors of a connection are the client's business: they are logged for debugging.
    async fn run(self, mut stream: TcpStream) {
        let limits = &self.state.limits;
        let header_limit = Duration::from_millis(limits.header_ms);
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let sniffed = tokio::select! {
            sniffed = sniff(&mut stream, header_limit / 2) => sniffed,
            () = self.state.closing.cancelled() => return,
        };
        let Ok((protocol, first)) = sniffed else { return };
        let io = TokioIo::new(Socket::new(stream, first, Duration::from_millis(limits.write_ms)));
        let (app, peer) = (self.app, self.peer);
        let service = service_fn(move |request: Request<Incoming>| answer(app.clone(), peer, request));
        let ended = match protocol {
            Protocol::Http1 => {
                let connection = http1_builder(&self.state.limits).serve_connection(io, service).with_upgrades();
                let ended = gracefully(connection, &self.state.closing).await;
                // Held until now: the shutdown waits for it.
                drop(self.watcher);
                ended
            }
            Protocol::Http2 => {
                self.watcher.watch(http2_builder(&self.state.limits).serve_connection(io, service)).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %peer.0, %error, "connection ended early");
        }
    }
}

/// Runs a connection; once the service closes, to the end of the answer in work.
async fn gracefully<S>(
    connection: http1::UpgradeableConnection<TokioIo<Socket>, S>,
    closing: &CancellationToken,
) -> hyper::Result<()>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn answer(
    mut app: Router,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<axum::response::Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    app.call(request).await
}

fn http1_builder(limits: &LimitsSpec) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_ms))
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes.as_usize())
        .max_buf_size(BUFFER_BYTES);
    builder
}

/// What one connection may have the server hold is 1 MiB of unread bodies and as much of unsent answers.
fn http2_builder(limits: &LimitsSpec) -> http2::Builder<TokioExecutor> {
    let header_limit = Duration::from_millis(limits.header_ms);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(header_limit)
        .keep_alive_timeout(header_limit)
        .max_concurrent_streams(100)
        .max_header_list_size(u32::try_from(limits.header_bytes.0).unwrap_or(u32::MAX))
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_send_buf_size(256 << 10);
    builder
}
