//! The channel between the connection, which reads, and the task that stores: bounded, timed, and honest about its end.
//!
//! The handler pumps the body into the channel; a task of its own takes it out. A client that leaves drops the handler and
//! with it the sender, and the task sees a broken stream, never one that seems to have ended: a half body is no body. Time
//! limits count only the waiting for the client, not for the store.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::stream::Stream;
use http_body_util::BodyExt;
use pipeline::BoxError;
use pipeline::spec::ByteSize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::meter;
use crate::problem::Problem;
use crate::spec::LimitsSpec;

/// Chunks between the two sides; with the connection's buffer of 64 KiB at most 192 KiB per upload.
const CHUNKS: usize = 2;

/// Longest chunk handed on, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

enum Piece {
    Data(Bytes),
    /// The body is complete.
    End,
    Broken(Problem),
}

/// The connection's side.
pub struct Pump {
    pieces: mpsc::Sender<Piece>,
}

/// The storing side: a stream of chunks that ends only where the body ended.
pub struct Feed {
    pieces: mpsc::Receiver<Piece>,
    over: bool,
}

/// A channel for one body.
pub fn channel() -> (Pump, Feed) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    (Pump { pieces: sender }, Feed { pieces: receiver, over: false })
}

/// How much may come, and how slowly.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Announced by `Content-Length`.
    pub announced: Option<u64>,
    /// Bytes.
    pub max_bytes: u64,
    /// For the whole body.
    pub total: Duration,
    /// Before `rate` holds.
    pub grace: Duration,
    /// Bytes per second of waiting for the client.
    pub rate: u64,
}

impl Allowance {
    pub fn new(limits: &LimitsSpec, announced: Option<u64>, max_bytes: u64) -> Self {
        Self {
            announced,
            max_bytes,
            total: Duration::from_millis(limits.upload_ms),
            grace: Duration::from_millis(limits.upload_grace_ms),
            rate: limits.upload_rate.0.max(1),
        }
    }

    /// How long a client may have let us wait once it has sent `bytes`.
    fn patience(&self, bytes: u64) -> Duration {
        self.grace.saturating_add(Duration::from_secs_f64(bytes as f64 / self.rate as f64))
    }
}

impl Pump {
    /// Reads the body to its end, or to the first reason not to. Returns early when the other side wants no more.
    pub async fn run(self, body: Body, allowance: Allowance) {
        let end = match self.read(body, allowance).await {
            Ok(true) => Piece::End,
            Ok(false) => return,
            Err(problem) => Piece::Broken(problem),
        };
        // Nobody listens any more: then it does not matter.
        let _ = self.pieces.send(end).await;
    }

    /// Whether the body was read to its end; `false` if the other side left.
    async fn read(&self, mut body: Body, allowance: Allowance) -> Result<bool, Problem> {
        let deadline = Instant::now() + allowance.total;
        let (mut read, mut waited) = (0_u64, Duration::ZERO);
        loop {
            let asked = Instant::now();
            let until = deadline.min(asked + allowance.patience(read).saturating_sub(waited));
            let frame = tokio::time::timeout_at(until, body.frame()).await.map_err(|_| too_slow(read, &allowance))?;
            waited += asked.elapsed();
            let data = match frame {
                None => break,
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    tracing::debug!(%error, read, "body cut");
                    return Err(cut());
                }
            };
            read += data.len() as u64;
            meter::uploaded(data.len());
            if read > allowance.max_bytes {
                let detail =
                    format!("the body goes on after {}, the most this route takes", ByteSize(allowance.max_bytes));
                return Err(Problem::too_large(detail));
            }
            if !self.send(data).await {
                return Ok(false);
            }
        }
        if allowance.announced.is_some_and(|announced| announced != read) {
            return Err(cut());
        }
        Ok(true)
    }

    async fn send(&self, mut data: Bytes) -> bool {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK_BYTES));
            if self.pieces.send(Piece::Data(chunk)).await.is_err() {
                return false;
            }
        }
        true
    }
}

fn too_slow(read: u64, allowance: &Allowance) -> Problem {
    let detail = format!(
        "{read} bytes came so far: at least {} bytes per second after {:?}, and the whole body within {:?}, are needed",
        allowance.rate, allowance.grace, allowance.total
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail)
}

fn cut() -> Problem {
    Problem::malformed("body_cut", "the body ended early; send it again")
}

impl Stream for Feed {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(self.pieces.poll_recv(context));
        Poll::Ready(match piece {
            Some(Piece::Data(data)) => Some(Ok(data)),
            Some(Piece::End) => {
                self.over = true;
                None
            }
            Some(Piece::Broken(problem)) => {
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

    fn allowance() -> Allowance {
        let limits =
            LimitsSpec { upload_grace_ms: 20, upload_rate: pipeline::spec::ByteSize(1), ..LimitsSpec::default() };
        Allowance::new(&limits, None, 1 << 20)
    }

    async fn drain(mut feed: Feed) -> Result<usize, Problem> {
        let mut read = 0;
        while let Some(chunk) = feed.next().await {
            read += chunk.map_err(Problem::of_body)?.len();
        }
        Ok(read)
    }

    #[tokio::test]
    async fn a_body_arrives_whole_in_bounded_chunks() {
        let (pump, feed) = channel();
        let ((), read) = tokio::join!(pump.run(Body::from(vec![1; 300_000]), allowance()), drain(feed));
        assert_eq!(read.unwrap(), 300_000);
    }

    #[tokio::test]
    async fn a_sender_that_vanishes_is_not_an_end() {
        let (pump, feed) = channel();
        drop(pump);
        assert_eq!(drain(feed).await.unwrap_err().status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn fewer_bytes_than_announced_are_a_cut_body() {
        let (pump, feed) = channel();
        let announced = Allowance { announced: Some(11), ..allowance() };
        let ((), read) = tokio::join!(pump.run(Body::from("ten bytes."), announced), drain(feed));
        assert!(read.unwrap_err().to_string().contains("body_cut"));
    }

    #[tokio::test]
    async fn a_client_that_stops_sending_is_given_up() {
        let (pump, feed) = channel();
        let silent = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]).chain(stream::pending());
        let hasty = Allowance { rate: 1_000, ..allowance() };
        let ((), read) = tokio::join!(pump.run(Body::from_stream(silent), hasty), drain(feed));
        assert_eq!(read.unwrap_err().status(), StatusCode::REQUEST_TIMEOUT);
    }
}
