//! A receiver of webhooks that says what it got, byte by byte, and answers as it is told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// What a receiver does once it has a request.
#[derive(Clone)]
pub enum Answer {
    /// Writes this and closes.
    Text(String),
    /// Writes this, then `x` for as long as anybody reads.
    Endless(String),
    /// Keeps the connection and says nothing.
    Silence,
}

impl Answer {
    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        Self::Text(format!("HTTP/1.1 {status} Some\r\nContent-Length: 0\r\n\r\n"))
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Got {
    /// The lines up to the empty one.
    pub head: Vec<String>,
    pub body: Vec<u8>,
}

/// Listens on a free port of 127.0.0.1 until the test ends.
pub struct Receiver {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    hung_up: watch::Receiver<usize>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Got>>,
}

impl Receiver {
    pub async fn new(answer: Answer) -> Self {
        Self::start(answer, None).await
    }

    /// One that speaks TLS.
    pub async fn with_tls(answer: Answer, tls: TlsAcceptor) -> Self {
        Self::start(answer, Some(tls)).await
    }

    async fn start(answer: Answer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (ended, hung_up) = watch::channel(0);
        let theirs = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                theirs.connections.fetch_add(1, Ordering::SeqCst);
                let (seen, answer, tls, ended) = (Arc::clone(&theirs), answer.clone(), tls.clone(), ended.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &answer, &seen).await,
                            Err(_) => None,
                        },
                        None => serve(stream, &answer, &seen).await,
                    };
                    ended.send_modify(|count| *count += 1);
                });
            }
        });
        Self { address, seen, hung_up }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections that were ever made, whether or not they said anything.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<Got> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Waits until a connection has ended.
    pub async fn hung_up(&mut self) {
        self.hung_up.wait_for(|count| *count > 0).await.unwrap();
    }
}

/// Reads one request and answers it; `None` where the other side left.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &Answer, seen: &Seen) -> Option<()> {
    let got = read(&mut stream).await?;
    seen.requests.lock().unwrap().push(got);
    match answer {
        Answer::Text(text) => stream.write_all(text.as_bytes()).await.ok()?,
        Answer::Endless(text) => {
            stream.write_all(text.as_bytes()).await.ok()?;
            while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
        }
        Answer::Silence => while stream.read_u8().await.is_ok() {},
    }
    stream.shutdown().await.ok()
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Got> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        bytes.push(stream.read_u8().await.ok()?);
    };
    let head: Vec<String> = String::from_utf8(bytes[..end].to_vec()).ok()?.split("\r\n").map(str::to_owned).collect();
    let length = head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length?];
    stream.read_exact(&mut body).await.ok()?;
    Some(Got { head, body })
}
