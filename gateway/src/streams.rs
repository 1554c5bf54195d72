//! The requests that are open on one HTTP/2 connection, and what is wrong with all or one of them.
//!
//! A connection without requests is idle, and goes after a while as an HTTP/1 connection does. A client that asks and
//! never opens its window has answers waiting for it that no write ever meets: an answer that nobody took for the write
//! limit ends its connection too.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

/// How often a connection is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// The requests of one connection.
pub struct Streams {
    open: Mutex<Open>,
}

struct Open {
    /// Since when the last piece of its answer waits to be taken, where one does.
    streams: HashMap<u64, Option<Instant>>,
    count: u64,
    /// When the last one ended, or the connection began.
    idle: Instant,
}

/// One request, from its head to the last byte of its answer.
pub struct Stream {
    streams: Arc<Streams>,
    id: u64,
}

impl Streams {
    pub fn new() -> Arc<Self> {
        let open = Open { streams: HashMap::new(), count: 0, idle: Instant::now() };
        Arc::new(Self { open: Mutex::new(open) })
    }

    /// Counts a request until what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> Stream {
        let mut open = self.lock();
        open.count += 1;
        let id = open.count;
        open.streams.insert(id, None);
        Stream { streams: Arc::clone(self), id }
    }

    /// Resolves when there was no request for `limit`.
    pub fn idle(&self, limit: Duration) -> impl Future<Output = ()> {
        self.until(limit, move |open| open.streams.is_empty() && open.idle.elapsed() >= limit)
    }

    /// Resolves when a piece of an answer was not taken for `limit`.
    pub fn stalled(&self, limit: Duration) -> impl Future<Output = ()> {
        self.until(limit, move |open| open.streams.values().flatten().any(|since| since.elapsed() >= limit))
    }

    async fn until(&self, limit: Duration, is: impl Fn(&Open) -> bool) {
        while !is(&self.lock()) {
            tokio::time::sleep(PERIOD.min(limit / 4).max(Duration::from_millis(1))).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Notes that a piece of the answer waits to be taken, or none.
    fn waits(&self, since: Option<Instant>) {
        self.streams.lock().streams.insert(self.id, since);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        open.streams.remove(&self.id);
        open.idle = Instant::now();
    }
}

/// The body of an answer, watched. The server asks for the next piece once the last one has found room in the client's
/// window.
pub struct Watched {
    pub body: Body,
    pub stream: Stream,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.stream.waits(None);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.stream.waits(Some(Instant::now()));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
