//! What an HTTP/2 client may have us do beside its requests.
//!
//! The server behind this bounds what it holds, and some floods itself (resets before a request was begun, endless
//! CONTINUATION, empty DATA). What is left is cheap to send and not to take: PING and SETTINGS must be answered, a stream
//! that is reset has been begun. So frames that carry nothing are counted, [`BURST`] of them at once and [`PER_SECOND`]
//! for long; one more ends the connection. WINDOW_UPDATE is not among them: a fast download needs many. Nor is there a
//! limit in the server to how long the headers of a request may take; that is kept here as well.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Frames without content that may come at once after a pause.
const BURST: f64 = 1_000.0;

/// And for long. A browser that leaves a page resets some tens of streams; pings come every few seconds.
const PER_SECOND: f64 = 100.0;

/// Length of what a client sends first.
const PREFACE_BYTES: usize = 24;

const HEAD_BYTES: usize = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flooded;

/// Follows what one client sends.
#[derive(Debug)]
pub struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that came.
    have: usize,
    /// Bytes that come before the next head.
    left: usize,
    /// Whether the frame that is coming ends the headers of a request.
    ends_block: bool,
    /// Until when the headers that have begun must have come.
    block: Option<Pin<Box<Sleep>>>,
    block_limit: Duration,
    allowed: f64,
    counted: Instant,
}

impl Frames {
    pub fn new(block_limit: Duration) -> Self {
        Self {
            head: [0; HEAD_BYTES],
            have: 0,
            left: PREFACE_BYTES,
            ends_block: false,
            block: None,
            block_limit,
            allowed: BURST,
            counted: Instant::now(),
        }
    }

    /// Follows what was read.
    ///
    /// # Errors
    /// If there was too much of nothing.
    pub fn inspect(&mut self, mut bytes: &[u8]) -> Result<(), Flooded> {
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            let wanted = (HEAD_BYTES - self.have).min(bytes.len() - skipped);
            self.head[self.have..self.have + wanted].copy_from_slice(&bytes[skipped..skipped + wanted]);
            self.have += wanted;
            bytes = &bytes[skipped + wanted..];
            self.end_block();
            if self.have == HEAD_BYTES {
                self.have = 0;
                self.begin_frame()?;
                // Of a frame that is nothing but its head.
                self.end_block();
            }
        }
        Ok(())
    }

    fn end_block(&mut self) {
        if self.left == 0 && self.ends_block {
            self.ends_block = false;
            self.block = None;
        }
    }

    /// Resolves when headers that have begun have not come in time.
    pub fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.block.as_mut().map_or(Poll::Pending, |block| block.as_mut().poll(context))
    }

    fn begin_frame(&mut self) -> Result<(), Flooded> {
        let [long, middle, short, kind, flags, ..] = self.head;
        self.left = usize::from(long) << 16 | usize::from(middle) << 8 | usize::from(short);
        if matches!(kind, HEADERS | CONTINUATION) {
            if self.block.is_none() {
                self.block = Some(Box::pin(tokio::time::sleep(self.block_limit)));
            }
            self.ends_block = flags & END_HEADERS != 0;
        }
        let is_empty = match kind {
            // What is padded may be padding alone, and nobody pads.
            DATA => flags & PADDED != 0 || self.left == 0 && flags & END_STREAM == 0,
            HEADERS | WINDOW_UPDATE => false,
            _ => true,
        };
        if is_empty { self.count() } else { Ok(()) }
    }

    fn count(&mut self) -> Result<(), Flooded> {
        let now = Instant::now();
        let regained = now.duration_since(self.counted).as_secs_f64() * PER_SECOND;
        self.counted = now;
        self.allowed = (self.allowed + regained).min(BURST) - 1.0;
        if self.allowed < 0.0 { Err(Flooded) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn begun() -> Frames {
        let mut frames = Frames::new(LIMIT);
        frames.inspect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        frames
    }

    /// How many of a frame are let through, sent whole or in pieces.
    fn let_through(frame: &[u8], piece: usize) -> usize {
        let mut frames = begun();
        (0..5_000).take_while(|_| frame.chunks(piece).all(|piece| frames.inspect(piece).is_ok())).count()
    }

    #[tokio::test(start_paused = true)]
    async fn frames_without_content_are_counted_and_others_not() {
        let floods = [
            frame(DATA, 0, b""),
            frame(DATA, PADDED, &[4, 0, 0, 0, 0]),
            frame(2, 0, &[0; 5]),
            frame(3, 0, &[0; 4]),
            frame(4, 0, &[0; 6]),
            frame(4, 1, b""),
            frame(6, 0, &[0; 8]),
            frame(CONTINUATION, 0, b""),
            frame(77, 0, &[0; 300]),
        ];
        for flood in floods {
            for piece in [1, 7, 500] {
                assert_eq!(let_through(&flood, piece), 1_000, "{flood:?}");
            }
        }
        let requests = [
            frame(DATA, END_STREAM, b""),
            frame(DATA, 0, b"x"),
            frame(HEADERS, 5, &[0x82]),
            frame(WINDOW_UPDATE, 0, &[1; 4]),
        ];
        for request in requests {
            assert_eq!(let_through(&request, 7), 5_000, "{request:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_counted_is_forgotten_with_time() {
        let mut frames = begun();
        let ping = frame(6, 0, &[0; 8]);
        for _ in 0..1_000 {
            frames.inspect(&ping).unwrap();
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..200).take_while(|_| frames.inspect(&ping).is_ok()).count(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn headers_have_their_time() {
        let late = |frames: &mut Frames| {
            futures_util::FutureExt::now_or_never(std::future::poll_fn(|cx| frames.poll_late(cx)))
        };
        let whole = frame(HEADERS, END_HEADERS, &[0x82, 0x84]);
        for cut in [9, 10, whole.len()] {
            let mut frames = begun();
            frames.inspect(&whole[..cut]).unwrap();
            tokio::time::advance(LIMIT * 2).await;
            assert_eq!(late(&mut frames).is_some(), cut < whole.len(), "{cut}");
        }
        let mut frames = begun();
        frames.inspect(&frame(HEADERS, 0, &[0x82])).unwrap();
        tokio::time::advance(LIMIT / 2).await;
        frames.inspect(&frame(CONTINUATION, 0, &[0x84])).unwrap();
        tokio::time::advance(LIMIT).await;
        assert!(late(&mut frames).is_some(), "a continuation buys no time");
        frames.inspect(&frame(CONTINUATION, END_HEADERS, b"")).unwrap();
        assert!(late(&mut frames).is_none());
    }
}
