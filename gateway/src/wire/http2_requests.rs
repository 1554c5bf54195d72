//! The open requests of one HTTP/2 connection: detects an idle connection and an answer that the client does not take.
//!
//! A connection without requests is idle and is closed after a while, as an HTTP/1 connection is. A client that never
//! opens its flow-control window makes answers wait that no socket write ever stalls on: an answer that is not taken
//! for the write limit ends its connection too.

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

/// How often a connection is checked.
const PERIOD: Duration = Duration::from_secs(1);

/// The open requests of one connection.
pub struct OpenRequests {
    table: Mutex<Table>,
}

struct Table {
    /// By request: since when the last chunk of its answer waits to be taken, if one does.
    requests: HashMap<u64, Option<Instant>>,
    count: u64,
    /// When the last request ended, or the connection began.
    idle_since: Instant,
}

/// One request, from its head to the last byte of its answer.
pub struct OpenRequest {
    requests: Arc<OpenRequests>,
    id: u64,
}

impl OpenRequests {
    pub fn new() -> Arc<Self> {
        let table = Table { requests: HashMap::new(), count: 0, idle_since: Instant::now() };
        Arc::new(Self { table: Mutex::new(table) })
    }

    /// Adds a request; it is open until the returned value is dropped.
    pub fn begin(self: &Arc<Self>) -> OpenRequest {
        let mut table = self.lock();
        table.count += 1;
        let id = table.count;
        table.requests.insert(id, None);
        OpenRequest { requests: Arc::clone(self), id }
    }

    /// Resolves when no request was open for `limit`.
    pub fn idle(&self, limit: Duration) -> impl Future<Output = ()> {
        self.until(limit, move |table| table.requests.is_empty() && table.idle_since.elapsed() >= limit)
    }

    /// Resolves when a chunk of an answer was not taken for `limit`.
    pub fn stalled(&self, limit: Duration) -> impl Future<Output = ()> {
        self.until(limit, move |table| table.requests.values().flatten().any(|since| since.elapsed() >= limit))
    }

    async fn until(&self, limit: Duration, is: impl Fn(&Table) -> bool) {
        while !is(&self.lock()) {
            tokio::time::sleep(PERIOD.min(limit / 4).max(Duration::from_millis(1))).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenRequest {
    /// Records since when a chunk of the answer waits to be taken, if one does.
    fn set_waiting(&self, since: Option<Instant>) {
        self.requests.lock().requests.insert(self.id, since);
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut table = self.requests.lock();
        table.requests.remove(&self.id);
        table.idle_since = Instant::now();
    }
}

/// The body of an answer, monitored. The server polls for the next chunk once the last one has found room in the
/// client's window.
pub struct MonitoredBody {
    pub body: Body,
    pub request: OpenRequest,
}

impl hyper::body::Body for MonitoredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.request.set_waiting(None);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.request.set_waiting(Some(Instant::now()));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
