//! A connection's stream as the server needs it: inbound bytes are checked, writes cannot stall for ever, and a close
//! lets the client read the answer.
//!
//! A client that leaves an answer unread for longer than the write limit is disconnected. If the server closes while
//! the client is still sending (413, 408), up to [`LINGER_BYTES`] are read and discarded for at most [`LINGER_TIME`]:
//! closing a socket with unread data resets the connection, and the client would lose the answer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::inbound_check::{InboundCheck, malformed_body};

const LINGER_BYTES: usize = 4 << 20;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// See the module.
pub struct Socket<S> {
    stream: S,
    /// Bytes that the server reads before those of the stream: read for detection, or in place of bytes that were cut
    /// off.
    pending: Bytes,
    check: InboundCheck,
    write_limit: Duration,
    /// Set while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set once our side is closed: until when and how many bytes are still read.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub fn new(stream: S, pending: Bytes, check: InboundCheck, write_limit: Duration) -> Self {
        Self { stream, pending, check, write_limit, stalled: None, lingering: None }
    }

    /// `done`, or an error once nothing could be written for the write limit.
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
        if this.pending.has_remaining() {
            let length = this.pending.len().min(buffer.remaining());
            buffer.put_slice(&this.pending.split_to(length));
            // Reads what follows in the same call: for a second read the server would double its buffer, and keep it.
            let has_room = this.pending.is_empty() && buffer.remaining() > 0;
            if has_room
                && !this.check.is_over()
                && let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer)
            {
                read?;
            }
        } else if this.check.is_over() {
            let is_closed = matches!(this.check, InboundCheck::Closed);
            return Poll::Ready(if is_closed { Ok(()) } else { Err(malformed_body()) });
        } else {
            let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer) else {
                this.check.check_timeout(context)?;
                return Poll::Pending;
            };
            read?;
        }
        let replacement = this.check.pass(buffer, known)?;
        if !replacement.is_empty() {
            this.pending = replacement;
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
        // Encrypted bytes wait here, plain ones in a write.
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
        let mut discarded = [0; 8 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
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
