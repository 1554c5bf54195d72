//! The channel that carries a body from its connection to the task that stores it: bounded, with time limits.
//!
//! The handler reads the body into the channel; a task of its own stores it. If the client disconnects, the handler and
//! with it the sender are dropped, and the task sees an aborted stream, never one that seems complete: half a body must
//! not become an event. Time limits count only the waiting for the client, not for the store.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::stream::Stream;
use http_body_util::BodyExt;
use pipeline::BoxError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::size_limit::SizeLimit;
use crate::door::metrics;
use crate::problem::Problem;
use crate::spec::LimitsSpec;

/// Chunks between the two sides; with the connection's buffer of 64 KiB at most 192 KiB per upload.
const CHUNKS: usize = 2;

/// Longest chunk, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

enum Message {
    Data(Bytes),
    /// The body is complete.
    End,
    Aborted(Problem),
}

/// The connection's side.
pub struct BodySender {
    messages: mpsc::Sender<Message>,
}

/// The storing side: a stream of chunks that ends without an error only if the body is complete.
pub struct BodyReceiver {
    messages: mpsc::Receiver<Message>,
    over: bool,
}

/// A channel for one body.
pub fn channel() -> (BodySender, BodyReceiver) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    (BodySender { messages: sender }, BodyReceiver { messages: receiver, over: false })
}

/// How large an upload may be, and how slow.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// Announced by `Content-Length`.
    pub announced: Option<u64>,
    /// Bytes.
    pub max_bytes: u64,
    /// For the whole body.
    pub total: Duration,
    /// Time before `rate` applies.
    pub grace: Duration,
    /// Least bytes per second of waiting for the client.
    pub rate: u64,
}

impl UploadLimits {
    pub fn new(limits: &LimitsSpec, announced: Option<u64>, max_bytes: u64) -> Self {
        Self {
            announced,
            max_bytes,
            total: Duration::from_millis(limits.upload_ms),
            grace: Duration::from_millis(limits.upload_grace_ms),
            rate: limits.upload_rate.0.max(1),
        }
    }

    /// The sum of waiting times that a client may have caused once it has sent `bytes`.
    fn max_waiting(&self, bytes: u64) -> Duration {
        self.grace.saturating_add(Duration::from_secs_f64(bytes as f64 / self.rate as f64))
    }
}

impl BodySender {
    /// Sends the body to its end, or to its first error. Returns early if the receiver is dropped.
    pub async fn send_all(self, body: Body, limits: UploadLimits) {
        let end = match self.read(body, limits).await {
            Ok(true) => Message::End,
            Ok(false) => return,
            Err(problem) => Message::Aborted(problem),
        };
        // If the receiver is dropped, the end does not matter.
        let _ = self.messages.send(end).await;
    }

    /// Whether the body was read to its end; `false` if the receiver is dropped.
    async fn read(&self, mut body: Body, limits: UploadLimits) -> Result<bool, Problem> {
        let deadline = Instant::now() + limits.total;
        let mut size = SizeLimit::new("the body", limits.max_bytes);
        let mut waited = Duration::ZERO;
        loop {
            let asked = Instant::now();
            let until = deadline.min(asked + limits.max_waiting(size.read()).saturating_sub(waited));
            let frame =
                tokio::time::timeout_at(until, body.frame()).await.map_err(|_| too_slow(size.read(), &limits))?;
            waited += asked.elapsed();
            let data = match frame {
                None => break,
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    tracing::debug!(%error, read = size.read(), "body cut");
                    return Err(cut());
                }
            };
            metrics::count_upload(data.len());
            size.add(data.len())?;
            if !self.send(data).await {
                return Ok(false);
            }
        }
        if limits.announced.is_some_and(|announced| announced != size.read()) {
            return Err(cut());
        }
        Ok(true)
    }

    async fn send(&self, mut data: Bytes) -> bool {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK_BYTES));
            if self.messages.send(Message::Data(chunk)).await.is_err() {
                return false;
            }
        }
        true
    }
}

fn too_slow(read: u64, limits: &UploadLimits) -> Problem {
    let detail = format!(
        "{read} bytes came so far: send at least {} bytes per second after {:?}, and the whole body within {:?}",
        limits.rate, limits.grace, limits.total
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail)
}

fn cut() -> Problem {
    Problem::malformed("body_cut", "the body ended early; send it again")
}

impl Stream for BodyReceiver {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(self.messages.poll_recv(context));
        Poll::Ready(match piece {
            Some(Message::Data(data)) => Some(Ok(data)),
            Some(Message::End) => {
                self.over = true;
                None
            }
            Some(Message::Aborted(problem)) => {
                self.over = true;
                Some(Err(problem.into()))
            }
            None => {
                self.over = true;
                Some(Err(cut().into()))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::StreamExt;
    use futures_util::stream;

    use super::*;

    fn limits() -> UploadLimits {
        let limits =
            LimitsSpec { upload_grace_ms: 20, upload_rate: pipeline::spec::ByteSize(1), ..LimitsSpec::default() };
        UploadLimits::new(&limits, None, 1 << 20)
    }

    async fn drain(mut receiver: BodyReceiver) -> Result<usize, Problem> {
        let mut read = 0;
        while let Some(chunk) = receiver.next().await {
            read += chunk.map_err(Problem::of_body)?.len();
        }
        Ok(read)
    }

    #[tokio::test]
    async fn a_body_arrives_whole_in_bounded_chunks() {
        let (sender, receiver) = channel();
        let ((), read) = tokio::join!(sender.send_all(Body::from(vec![1; 300_000]), limits()), drain(receiver));
        assert_eq!(read.unwrap(), 300_000);
    }

    #[tokio::test]
    async fn a_dropped_sender_is_an_aborted_body() {
        let (sender, receiver) = channel();
        drop(sender);
        assert_eq!(drain(receiver).await.unwrap_err().status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn fewer_bytes_than_announced_are_a_cut_body() {
        let (sender, receiver) = channel();
        let announced = UploadLimits { announced: Some(11), ..limits() };
        let ((), read) = tokio::join!(sender.send_all(Body::from("ten bytes."), announced), drain(receiver));
        assert!(read.unwrap_err().to_string().contains("body_cut"));
    }

    #[tokio::test]
    async fn a_client_that_stops_sending_is_refused() {
        let (sender, receiver) = channel();
        let silent = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]).chain(stream::pending());
        let strict = UploadLimits { rate: 1_000, ..limits() };
        let ((), read) = tokio::join!(sender.send_all(Body::from_stream(silent), strict), drain(receiver));
        assert_eq!(read.unwrap_err().status(), StatusCode::REQUEST_TIMEOUT);
    }
}
