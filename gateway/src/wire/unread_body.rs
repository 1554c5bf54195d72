//! What is left of a body after its request was answered is read and thrown away, so that its sender can read the
//! answer.
//!
//! Many clients send a whole body before they read. If the connection were closed meanwhile, they would see a reset
//! (EPIPE, ECONNRESET) instead of the 413, 401 or 503. The rest is read beside the answer and within bounds: of bytes,
//! of time, of its rate, and of how many bodies are discarded at once, in all and for one address. Within them the
//! connection can be used again; beyond them it is closed after [`Socket`](super::socket::Socket)'s short linger.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::capacity::open_counts::{OpenCount, OpenCounts};
use crate::identity::caller::Client;
use crate::state::GatewayState;

/// Most bytes that are discarded of one body.
const MAX_BYTES: u64 = 256 << 20;

/// Longest time in which one body is discarded.
const MAX_TIME: Duration = Duration::from_secs(30);

/// Longest pause of a sender, and the time before `MIN_RATE` applies.
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// Slowest sender, in bytes per second.
const MIN_RATE: u64 = 16 << 10;

/// Bodies that are discarded at once.
const MAX_DISCARDED: usize = 64;

/// The same for one address, where the connections of an address are limited.
const MAX_PER_ADDRESS: usize = 16;

/// A body that announces no more than this is discarded without being counted: connections are counted already.
const UNCOUNTED_BYTES: u64 = 64 << 10;

/// Discards the unread rests of bodies.
pub struct Discards {
    state: GatewayState,
    permits: Arc<Semaphore>,
    counts: Arc<OpenCounts>,
}

/// The place of one body among those that are discarded.
type Slot = (OwnedSemaphorePermit, Option<OpenCount>);

impl Discards {
    pub fn new(state: GatewayState) -> Self {
        Self { state, permits: Arc::new(Semaphore::new(MAX_DISCARDED)), counts: Arc::default() }
    }

    /// Begins to discard what a request has left of its body. `false` if the rest will not be read, and no other
    /// request can follow it on an HTTP/1 connection.
    pub fn begin(&self, peer: IpAddr, unread: &UnreadBody, status: StatusCode) -> bool {
        let Some(body) = unread.take() else { return true };
        // A body that came too slowly is not waited for.
        if status == StatusCode::REQUEST_TIMEOUT || unread.awaits_continue() {
            return false;
        }
        let size = body.size_hint();
        if size.lower() > MAX_BYTES {
            return false;
        }
        let is_small = size.exact().is_some_and(|length| length <= UNCOUNTED_BYTES);
        let slot = if is_small { None } else { self.slot(peer) };
        if !is_small && slot.is_none() {
            return false;
        }
        tokio::spawn(async move {
            discard(body).await;
            drop(slot);
        });
        true
    }

    fn slot(&self, peer: IpAddr) -> Option<Slot> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let is_limited =
            self.state.limits.connections_of(peer).is_some() && !self.state.service.trusted_proxies.trusts(peer);
        let count = match is_limited {
            true => Some(self.counts.open(vec![(Client::of_address(peer), MAX_PER_ADDRESS)]).ok()?),
            false => None,
        };
        Some((permit, count))
    }
}

/// Reads a body to its end or to one of the bounds. Dropping it makes the server stop reading.
async fn discard(mut body: impl HttpBody<Data = Bytes> + Unpin) {
    let begun = Instant::now();
    let (mut last, mut read) = (begun, 0);
    while read <= MAX_BYTES {
        let at_rate = begun + MAX_PAUSE + Duration::from_secs(read / MIN_RATE);
        let until = at_rate.min(last + MAX_PAUSE).min(begun + MAX_TIME);
        match timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => read += frame.data_ref().map_or(0, |data| data.len() as u64),
            Ok(Some(Err(_)) | None) | Err(_) => return,
        }
        last = Instant::now();
    }
}

/// Where a body goes that its handler drops before its end.
pub struct UnreadBody {
    place: Arc<Mutex<Place>>,
    /// The client waits for `100 Continue`, or the answer, before it sends the body.
    expects_continue: bool,
}

#[derive(Default)]
struct Place {
    body: Option<Incoming>,
    /// Whether the handler has begun to read.
    is_begun: bool,
}

impl UnreadBody {
    fn take(&self) -> Option<Incoming> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).body.take()
    }

    fn awaits_continue(&self) -> bool {
        self.expects_continue && !self.place.lock().unwrap_or_else(PoisonError::into_inner).is_begun
    }
}

/// The body of a request for its handler.
struct WatchedBody {
    /// `None` once it has ended.
    body: Option<Incoming>,
    is_begun: bool,
    place: Arc<Mutex<Place>>,
}

/// Watches the body of a request, if it has one.
pub fn watch(request: Request<Incoming>) -> (Request<Body>, UnreadBody) {
    let place = Arc::<Mutex<Place>>::default();
    let unread =
        UnreadBody { place: Arc::clone(&place), expects_continue: request.headers().contains_key(header::EXPECT) };
    let request = request.map(|body| match body.is_end_stream() {
        true => Body::empty(),
        false => Body::new(WatchedBody { body: Some(body), is_begun: false, place }),
    });
    (request, unread)
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.is_begun = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.is_begun = self.is_begun;
        place.body = self.body.take().filter(|body| !body.is_end_stream());
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};
    use http_body_util::StreamBody;

    use super::*;

    /// How long a sender is read that sends `bytes` and then pauses, again and again.
    async fn time_of(bytes: usize, pause: Duration) -> Duration {
        let begun = Instant::now();
        let chunks = stream::repeat(Bytes::from(vec![0; bytes])).then(move |chunk| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, Infallible>(Frame::data(chunk))
        });
        discard(StreamBody::new(Box::pin(chunks))).await;
        begun.elapsed()
    }

    /// Timers are exact to a millisecond.
    #[track_caller]
    fn lasts(took: Duration, expected: Duration) {
        assert!(took >= expected && took < expected + Duration::from_millis(5), "{took:?}, not {expected:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_discarded_within_bounds_of_time_pause_and_rate() {
        let ms = Duration::from_millis;
        // Above the least rate; with a pause; far below the least rate.
        lasts(time_of(64 << 10, ms(1000)).await, MAX_TIME);
        lasts(time_of(1 << 20, ms(3100)).await, MAX_PAUSE);
        lasts(time_of(1, ms(10)).await, MAX_PAUSE);
        assert!(time_of(8 << 10, ms(1000)).await < ms(8_000), "half of the least rate");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_discarded_within_its_bound_of_bytes() {
        lasts(time_of(1 << 20, Duration::from_millis(1)).await, Duration::from_millis(257));
    }
}
