//! Detects the protocol of a connection, HTTP/1 or HTTP/2, from its first bytes. hyper-util's own detection has no time
//! limit.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The connection preface that every HTTP/2 client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Reads until the protocol is known, and returns the bytes read for the server to read again. The caller limits its
/// time.
///
/// # Errors
/// If the client closes first.
pub async fn detect(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Protocol, Bytes)> {
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
