//! HTTP/2 frame limits: a rate limit on frames without content, and a time limit on a request's headers.
//!
//! The HTTP server bounds its memory and refuses some floods itself (resets of requests that have not begun, endless
//! CONTINUATION, empty DATA). The other floods are cheap to send and costly to receive: PING and SETTINGS must be
//! answered, and a stream that is reset has begun. So frames without content are counted: [`BURST`] of them may come at
//! once and [`PER_SECOND`] for long; one more ends the connection. WINDOW_UPDATE is not counted: a fast download needs
//! many. The server also has no limit on how long the headers of a request may take, so that limit is here too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Frames without content that may come at once after a pause.
const BURST: f64 = 1_000.0;

/// Frames without content per second, for long. A browser that leaves a page resets some tens of streams; pings come
/// every few seconds.
const PER_SECOND: f64 = 100.0;

/// Length of the connection preface.
const PREFACE_BYTES: usize = 24;

const HEAD_BYTES: usize = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Too many frames without content: the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameFlood;

/// Follows the frames that one client sends.
#[derive(Debug)]
pub struct FrameLimits {
    head: [u8; HEAD_BYTES],
    /// Bytes of the frame head read so far.
    have: usize,
    /// Bytes before the next frame head.
    left: usize,
    /// Whether the current frame ends the headers of a request.
    ends_block: bool,
    /// The deadline of headers that have begun.
    block: Option<Pin<Box<Sleep>>>,
    block_timeout: Duration,
    /// Frames without content that may come now.
    allowed: f64,
    counted: Instant,
}

impl FrameLimits {
    pub fn new(block_timeout: Duration) -> Self {
        Self {
            head: [0; HEAD_BYTES],
            have: 0,
            left: PREFACE_BYTES,
            ends_block: false,
            block: None,
            block_timeout,
            allowed: BURST,
            counted: Instant::now(),
        }
    }

    /// Follows the next bytes.
    ///
    /// # Errors
    /// If there are too many frames without content.
    pub fn inspect(&mut self, mut bytes: &[u8]) -> Result<(), FrameFlood> {
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
                // A frame without payload ends with its head.
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
    pub fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.block.as_mut().map_or(Poll::Pending, |block| block.as_mut().poll(context))
    }

    fn begin_frame(&mut self) -> Result<(), FrameFlood> {
        let [long, middle, short, kind, flags, ..] = self.head;
        self.left = usize::from(long) << 16 | usize::from(middle) << 8 | usize::from(short);
        if matches!(kind, HEADERS | CONTINUATION) {
            if self.block.is_none() {
                self.block = Some(Box::pin(tokio::time::sleep(self.block_timeout)));
            }
            self.ends_block = flags & END_HEADERS != 0;
        }
        let is_empty = match kind {
            // Padded DATA may be padding alone, and real clients do not pad.
            DATA => flags & PADDED != 0 || self.left == 0 && flags & END_STREAM == 0,
            HEADERS | WINDOW_UPDATE => false,
            _ => true,
        };
        if is_empty { self.count() } else { Ok(()) }
    }

    fn count(&mut self) -> Result<(), FrameFlood> {
        let now = Instant::now();
        let refilled = now.duration_since(self.counted).as_secs_f64() * PER_SECOND;
        self.counted = now;
        self.allowed = (self.allowed + refilled).min(BURST) - 1.0;
        if self.allowed < 0.0 { Err(FrameFlood) } else { Ok(()) }
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

    fn begun() -> FrameLimits {
        let mut frames = FrameLimits::new(LIMIT);
        frames.inspect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        frames
    }

    /// How many copies of a frame pass, sent whole or in pieces.
    fn passed(frame: &[u8], piece: usize) -> usize {
        let mut frames = begun();
        (0..5_000).take_while(|_| frame.chunks(piece).all(|piece| frames.inspect(piece).is_ok())).count()
    }

    #[tokio::test(start_paused = true)]
    async fn only_frames_without_content_are_limited() {
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
                assert_eq!(passed(&flood, piece), 1_000, "{flood:?}");
            }
        }
        let requests = [
            frame(DATA, END_STREAM, b""),
            frame(DATA, 0, b"x"),
            frame(HEADERS, 5, &[0x82]),
            frame(WINDOW_UPDATE, 0, &[1; 4]),
        ];
        for request in requests {
            assert_eq!(passed(&request, 7), 5_000, "{request:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_refills_with_time() {
        let mut frames = begun();
        let ping = frame(6, 0, &[0; 8]);
        for _ in 0..1_000 {
            frames.inspect(&ping).unwrap();
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..200).take_while(|_| frames.inspect(&ping).is_ok()).count(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn headers_must_come_in_time() {
        let timed_out = |frames: &mut FrameLimits| {
            futures_util::FutureExt::now_or_never(std::future::poll_fn(|cx| frames.poll_timeout(cx)))
        };
        let whole = frame(HEADERS, END_HEADERS, &[0x82, 0x84]);
        for cut in [9, 10, whole.len()] {
            let mut frames = begun();
            frames.inspect(&whole[..cut]).unwrap();
            tokio::time::advance(LIMIT * 2).await;
            assert_eq!(timed_out(&mut frames).is_some(), cut < whole.len(), "{cut}");
        }
        let mut frames = begun();
        frames.inspect(&frame(HEADERS, 0, &[0x82])).unwrap();
        tokio::time::advance(LIMIT / 2).await;
        frames.inspect(&frame(CONTINUATION, 0, &[0x84])).unwrap();
        tokio::time::advance(LIMIT).await;
        assert!(timed_out(&mut frames).is_some(), "a continuation does not extend the time");
        frames.inspect(&frame(CONTINUATION, END_HEADERS, b"")).unwrap();
        assert!(timed_out(&mut frames).is_none());
    }
}
