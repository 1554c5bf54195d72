//! A connection's bytes as the server wants it: its protocol known, writes that cannot stall for ever, and a close that lets
//! the client read the answer.
//!
//! The protocol is told from the first bytes (hyper-util's own detection has no time limit). A client that
//! leaves an answer unread for longer than the write limit is cut off. When the server closes while the client is still
//! sending (413, 408), up to [`LINGER_BYTES`] are read and thrown away for at most [`LINGER_TIME`]: a socket closed with
//! unread data resets the connection, and the client would lose the answer.
//!
//! What comes in passes a [`Gate`], which ends a connection that abuses its protocol before the server has work from it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::frames::{Flooded, Frames};
use crate::framing::{Found, Framing};

/// What every HTTP/2 client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const LINGER_BYTES: usize = 4 << 20;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Reads until the protocol is known. What was read is given back, to be read again. Whoever calls limits its time.
///
/// # Errors
/// If the client closed before it was.
pub async fn sniff(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Protocol, Bytes)> {
    let mut first = BytesMut::with_capacity(PREFACE.len());
    loop {
        let mut room = (&mut *stream).take((PREFACE.len() - first.len()) as u64);
        if room.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !PREFACE.starts_with(&first) {
            return Ok((Protocol::Http1, first.freeze()));
        }
        if first.len() == PREFACE.len() {
            return Ok((Protocol::Http2, first.freeze()));
        }
    }
}

/// What looks at the bytes that come in, before the server does.
pub enum Gate {
    /// HTTP/1, until an upgrade was answered: what follows is another protocol.
    Http1 {
        framing: Framing,
        upgraded: Arc<AtomicBool>,
    },
    Http2(Frames),
    /// Nothing more is let through: there is an end.
    Shut,
    /// The same, and there is none.
    Broken,
}

impl Gate {
    /// A gate for HTTP/1 that opens for good once `upgraded` is set.
    pub fn http1(upgraded: Arc<AtomicBool>) -> Self {
        Self::Http1 { framing: Framing::new(), upgraded }
    }

    /// A gate for HTTP/2, where the headers of a request must come within `limit`.
    pub fn http2(limit: Duration) -> Self {
        Self::Http2(Frames::new(limit))
    }

    /// Looks at what was read behind the first `known` bytes of the buffer, and cuts off what must not go through. What is
    /// returned comes in its place.
    fn pass(&mut self, buffer: &mut ReadBuf<'_>, known: usize) -> io::Result<Bytes> {
        match self {
            Self::Http1 { upgraded, .. } if upgraded.load(Ordering::Acquire) => Ok(Bytes::new()),
            Self::Http1 { framing, .. } => match framing.inspect(&buffer.filled()[known..]) {
                Found::Good => Ok(Bytes::new()),
                Found::BadHead(at) => {
                    // The server refuses the head for this byte, once it has seen the end of it.
                    buffer.filled_mut()[known + at] = 0;
                    buffer.set_filled(known + at + 1);
                    *self = Self::Shut;
                    Ok(Bytes::from_static(b"\r\n\r\n"))
                }
                Found::BadBody(at) => {
                    *self = Self::Broken;
                    buffer.set_filled(known + at);
                    if at == 0 { Err(broken()) } else { Ok(Bytes::new()) }
                }
            },
            Self::Http2(frames) => match frames.inspect(&buffer.filled()[known..]) {
                Ok(()) => Ok(Bytes::new()),
                Err(Flooded) => {
                    *self = Self::Broken;
                    Err(io::Error::other("too many frames without content"))
                }
            },
            Self::Shut | Self::Broken => Ok(Bytes::new()),
        }
    }

    /// An error when what should have come has not.
    fn late(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Self::Http2(frames) = self else { return Ok(()) };
        if frames.poll_late(context).is_ready() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the body is malformed")
}

/// See the module.
pub struct Socket<S> {
    stream: S,
    /// Read by the sniffer, or put in place of what was cut off; not yet read by the server.
    first: Bytes,
    gate: Gate,
    write_limit: Duration,
    /// Set while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set once our side is closed: until when, and how much, is still read.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub fn new(stream: S, first: Bytes, gate: Gate, write_limit: Duration) -> Self {
        Self { stream, first, gate, write_limit, stalled: None, lingering: None }
    }

    /// `done`, or an error once nothing could be written for the limit.
    fn unless_stalled<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let limit = self.write_limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let known = buffer.filled().len();
        if this.first.has_remaining() {
            let length = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first.split_to(length));
            // What comes with it is read at once: for a second read the server would take twice the buffer, and keep it.
            let has_room = this.first.is_empty() && buffer.remaining() > 0;
            if has_room
                && !matches!(this.gate, Gate::Shut | Gate::Broken)
                && let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer)
            {
                read?;
            }
        } else if matches!(this.gate, Gate::Shut | Gate::Broken) {
            return Poll::Ready(if matches!(this.gate, Gate::Shut) { Ok(()) } else { Err(broken()) });
        } else {
            let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer) else {
                this.gate.late(context)?;
                return Poll::Pending;
            };
            read?;
        }
        let instead = this.gate.pass(buffer, known)?;
        if !instead.is_empty() {
            this.first = instead;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_stalled(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.unless_stalled(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Encrypted bytes wait here, where plain ones wait in a write.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.unless_stalled(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            let shut = Pin::new(&mut this.stream).poll_shutdown(context);
            ready!(this.unless_stalled(context, shut))?;
        }
        let (until, left) =
            this.lingering.get_or_insert_with(|| (Box::pin(tokio::time::sleep(LINGER_TIME)), LINGER_BYTES));
        let mut thrown_away = [0; 8 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut thrown_away);
            match Pin::new(&mut this.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && *left > buffer.filled().len() => {
                    *left -= buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(until.as_mut().poll(context));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
