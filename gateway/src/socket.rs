//! A TCP connection as the server wants it: its protocol known, writes that cannot stall for ever, and a close that lets
//! the client read the answer.
//!
//! The protocol is told from the first bytes, within a time limit (hyper-util's own detection has none). A client that
//! leaves an answer unread for longer than the write limit is cut off. When the server closes while the client is still
//! sending (413, 408), up to [`LINGER_BYTES`] are read and thrown away for at most [`LINGER_TIME`]: a socket closed with
//! unread data resets the connection, and the client would lose the answer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

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

/// Reads until the protocol is known. What was read is given back, to be read again.
///
/// # Errors
/// If the client closed or sent nothing decisive within `limit`.
pub async fn sniff(stream: &mut TcpStream, limit: Duration) -> io::Result<(Protocol, Bytes)> {
    let mut first = BytesMut::with_capacity(PREFACE.len());
    let decide = async {
        loop {
            let mut room = (&mut *stream).take((PREFACE.len() - first.len()) as u64);
            if room.read_buf(&mut first).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            if !PREFACE.starts_with(&first) {
                return Ok(Protocol::Http1);
            }
            if first.len() == PREFACE.len() {
                return Ok(Protocol::Http2);
            }
        }
    };
    let protocol =
        tokio::time::timeout(limit, decide).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok((protocol, first.freeze()))
}

/// See the module.
pub struct Socket {
    stream: TcpStream,
    /// Read by the sniffer, not yet by the server.
    first: Bytes,
    write_limit: Duration,
    /// Set while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set once our side is closed: until when, and how much, is still read.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Socket {
    pub fn new(stream: TcpStream, first: Bytes, write_limit: Duration) -> Self {
        Self { stream, first, write_limit, stalled: None, lingering: None }
    }

    /// `written`, or an error once nothing could be written for the limit.
    fn unless_stalled(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.write_limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.has_remaining() {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
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
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
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
