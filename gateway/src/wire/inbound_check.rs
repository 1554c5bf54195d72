//! Checks the bytes that a client sends before the server sees them: HTTP/1 framing, HTTP/2 frame limits. Ends a
//! connection that abuses its protocol.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::ReadBuf;

use super::http1_framing::{FramingCheck, Verdict};
use super::http2_frame_limits::{FrameFlood, FrameLimits};

/// The check of one connection's inbound bytes.
pub enum InboundCheck {
    /// HTTP/1, until an upgrade is answered: another protocol follows then.
    Http1 {
        framing: FramingCheck,
        upgraded: Arc<AtomicBool>,
    },
    Http2(FrameLimits),
    /// Nothing more passes: the server reads the end of the stream.
    Closed,
    /// Nothing more passes: the server reads an error.
    Failed,
}

impl InboundCheck {
    /// The check of an HTTP/1 connection; it ends for good once `upgraded` is set.
    pub fn http1(upgraded: Arc<AtomicBool>) -> Self {
        Self::Http1 { framing: FramingCheck::new(), upgraded }
    }

    /// The check of an HTTP/2 connection, where the headers of a request must come within `header_timeout`.
    pub fn http2(header_timeout: Duration) -> Self {
        Self::Http2(FrameLimits::new(header_timeout))
    }

    /// Whether nothing more passes.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Closed | Self::Failed)
    }

    /// Checks the bytes after the first `known` of the buffer and cuts off those that must not pass. The returned bytes
    /// take their place.
    ///
    /// # Errors
    /// If the connection must end.
    pub fn pass(&mut self, buffer: &mut ReadBuf<'_>, known: usize) -> io::Result<Bytes> {
        match self {
            Self::Http1 { upgraded, .. } if upgraded.load(Ordering::Acquire) => Ok(Bytes::new()),
            Self::Http1 { framing, .. } => match framing.inspect(&buffer.filled()[known..]) {
                Verdict::Good => Ok(Bytes::new()),
                Verdict::BadHead(at) => {
                    // The server refuses the head for this byte once it has read the end of the head.
                    buffer.filled_mut()[known + at] = 0;
                    buffer.set_filled(known + at + 1);
                    *self = Self::Closed;
                    Ok(Bytes::from_static(b"\r\n\r\n"))
                }
                Verdict::BadBody(at) => {
                    *self = Self::Failed;
                    buffer.set_filled(known + at);
                    if at == 0 { Err(malformed_body()) } else { Ok(Bytes::new()) }
                }
            },
            Self::Http2(frames) => match frames.inspect(&buffer.filled()[known..]) {
                Ok(()) => Ok(Bytes::new()),
                Err(FrameFlood) => {
                    *self = Self::Failed;
                    Err(io::Error::other("too many frames without content"))
                }
            },
            Self::Closed | Self::Failed => Ok(Bytes::new()),
        }
    }

    /// An error if headers have begun and have not come in time.
    pub fn check_timeout(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Self::Http2(frames) = self else { return Ok(()) };
        if frames.poll_timeout(context).is_ready() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

pub fn malformed_body() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the body is malformed")
}
