//! One connection, from its first byte to its close: TLS handshake, protocol detection, HTTP/1 or HTTP/2.
//!
//! The first byte must come within half of `header_ms`, each request's headers within `header_ms` of the last answer.
//! The number and size of headers are limited. Inbound bytes are checked before the server sees them (`inbound_check`).

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tower::Service;

use super::http2_requests::{MonitoredBody, OpenRequests};
use super::inbound_check::InboundCheck;
use super::protocol::{Protocol, detect};
use super::socket::Socket;
use super::tls::Tls;
use super::unread_body::{self, Discards};
use crate::spec::LimitsSpec;
use crate::state::GatewayState;

/// Buffer of an HTTP/1 connection: the size of the chunks in which uploads arrive.
const BUFFER_BYTES: usize = 64 << 10;

/// The address of the client, as an extension of its requests.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// An accepted connection.
pub struct Connection {
    pub app: Router,
    pub state: GatewayState,
    pub tls: Option<Arc<Tls>>,
    pub peer: Peer,
    pub discards: Arc<Discards>,
    /// A shutdown waits until this is dropped.
    pub watcher: Watcher,
}

impl Connection {
    /// Runs until either side closes. Errors of a connection are mostly the client's: they are logged at debug level.
    pub async fn run(self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let Some(tls) = self.tls.clone() else { return self.serve(stream).await };
        // The handshake has the time limit of the first byte. On the heap: the future of every connection would reserve
        // its size otherwise, and few connections need it.
        let secured = self.within(Box::pin(async move { tls.accept(stream).await.map(Box::new) })).await;
        if let Some(stream) = secured {
            self.serve(stream).await;
        }
    }

    /// The result of a connection's beginning, unless that takes too long or the service closes.
    async fn within<T>(&self, beginning: impl Future<Output = io::Result<T>>) -> Option<T> {
        let limit = Duration::from_millis(self.state.limits.header_ms) / 2;
        let begun = tokio::select! {
            begun = tokio::time::timeout(limit, beginning) => begun.ok()?,
            () = self.state.last_requests_taken() => return None,
        };
        begun.inspect_err(|error| tracing::debug!(peer = %self.peer.0, %error, "connection not begun")).ok()
    }

    /// Detects the protocol and serves it. The first bytes decide, whatever TLS negotiated.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, mut stream: S) {
        let Some((protocol, first)) = self.within(Box::pin(detect(&mut stream))).await else { return };
        let peer = self.peer;
        let ended = match protocol {
            Protocol::Http1 => self.http1(stream, first).await,
            Protocol::Http2 => Box::pin(self.http2(stream, first)).await,
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %peer.0, %error, "connection ended early");
        }
    }

    /// Not an async function: its future would store the arguments in addition to the connection made of them.
    fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: S,
        first: Bytes,
    ) -> impl Future<Output = hyper::Result<()>> {
        let upgraded = Arc::new(AtomicBool::new(false));
        let io = self.socket(stream, first, InboundCheck::http1(Arc::clone(&upgraded)));
        let (app, peer, discards) = (self.app, self.peer, self.discards);
        let closing = self.state.closing.clone();
        let service = service_fn(move |request| {
            let answered = answer(app.clone(), peer, Arc::clone(&discards), request);
            let upgraded = Arc::clone(&upgraded);
            let closing = closing.clone();
            // On the heap while it runs: the connection would reserve its size otherwise, and most connections are
            // idle.
            Box::pin(async move {
                let Answered { mut response, is_last } = answered.await?;
                let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                // The client switches protocols only once it has read this response.
                upgraded.fetch_or(switches, Ordering::Release);
                if (is_last || closing.is_cancelled()) && !switches {
                    // Or the client would send its next request to a connection that is about to be closed.
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            })
        });
        let connection = http1_builder(&self.state.limits).serve_connection(io, service).with_upgrades();
        gracefully(Box::pin(connection), self.state, self.watcher)
    }

    async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: S,
        first: Bytes,
    ) -> hyper::Result<()> {
        let limits = &self.state.limits;
        let (idle_limit, write_limit) =
            (Duration::from_millis(limits.header_ms), Duration::from_millis(limits.write_ms));
        let io = self.socket(stream, first, InboundCheck::http2(idle_limit));
        let (app, peer, discards) = (self.app, self.peer, self.discards);
        let requests = OpenRequests::new();
        let table = Arc::clone(&requests);
        let service = service_fn(move |request| {
            let answered = answer(app.clone(), peer, Arc::clone(&discards), request);
            let request = table.begin();
            async move { Ok::<_, Infallible>(answered.await?.response.map(|body| MonitoredBody { body, request })) }
        });
        let connection = http2_builder(limits).serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = &mut connection => return ended,
            () = requests.stalled(write_limit) => return Ok(()),
            () = requests.idle(idle_limit) => {}
            // The client is told to open no more streams; those that are open or on their way are answered.
            () = self.state.closing.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        // A client that ignores the GOAWAY is disconnected.
        let ended = tokio::select! {
            ended = connection => ended,
            () = requests.stalled(write_limit) => Ok(()),
            () = requests.idle(idle_limit * 2) => Ok(()),
        };
        drop(self.watcher);
        ended
    }

    fn socket<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        first: Bytes,
        check: InboundCheck,
    ) -> TokioIo<Socket<S>> {
        let write_limit = Duration::from_millis(self.state.limits.write_ms);
        TokioIo::new(Socket::new(stream, first, check, write_limit))
    }
}

/// Runs a connection; once the service closes, until the current answer is sent. A shutdown waits for the watcher. A
/// connection without a request is not closed before what was sent when the shutdown began has arrived.
async fn gracefully<I, S>(
    mut connection: Pin<Box<http1::UpgradeableConnection<I, S>>>,
    state: GatewayState,
    _watcher: Watcher,
) -> hyper::Result<()>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    tokio::select! {
        // In this order: a connection that has not been read from would be closed with its first request unread.
        biased;
        ended = &mut connection => return ended,
        () = state.last_requests_taken() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// An answer, and whether an HTTP/1 connection ends with it because its request is not read to the end.
struct Answered {
    response: Response,
    is_last: bool,
}

async fn answer(
    mut app: Router,
    peer: Peer,
    discards: Arc<Discards>,
    request: Request<Incoming>,
) -> Result<Answered, Infallible> {
    let (mut request, unread) = unread_body::watch(request);
    request.extensions_mut().insert(peer);
    let response = app.call(request).await?;
    let is_last = !discards.begin(peer.0, &unread, response.status());
    Ok(Answered { response, is_last })
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

/// One connection can make the server buffer at most 1 MiB of unread bodies and one chunk of each answer that is not
/// taken.
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
