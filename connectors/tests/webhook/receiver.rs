//! A webhook receiver that records requests byte by byte and answers as configured.

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
    /// Writes this, then `x` until the connection is closed.
    Endless(String),
    /// Leaves the connection open and writes nothing.
    Silence,
}

impl Answer {
    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        Self::Text(format!("HTTP/1.1 {status} Some\r\nContent-Length: 0\r\n\r\n"))
    }
}

/// A request as received.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    /// The lines up to the empty one.
    pub head: Vec<String>,
    pub body: Vec<u8>,
}

/// Listens on a free port of 127.0.0.1 until the test ends.
pub struct Receiver {
    pub address: SocketAddr,
    log: Arc<RequestLog>,
    hung_up: watch::Receiver<usize>,
}

#[derive(Default)]
struct RequestLog {
    connections: AtomicUsize,
    requests: Mutex<Vec<ReceivedRequest>>,
}

impl Receiver {
    pub async fn new(answer: Answer) -> Self {
        Self::start(answer, None).await
    }

    /// With TLS.
    pub async fn with_tls(answer: Answer, tls: TlsAcceptor) -> Self {
        Self::start(answer, Some(tls)).await
    }

    async fn start(answer: Answer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(RequestLog::default());
        let (ended, hung_up) = watch::channel(0);
        let theirs = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                theirs.connections.fetch_add(1, Ordering::SeqCst);
                let (log, answer, tls, ended) = (Arc::clone(&theirs), answer.clone(), tls.clone(), ended.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &answer, &log).await,
                            Err(_) => None,
                        },
                        None => serve(stream, &answer, &log).await,
                    };
                    ended.send_modify(|count| *count += 1);
                });
            }
        });
        Self { address, log, hung_up }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections ever made, with or without a request.
    pub fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.log.requests.lock().unwrap().clone()
    }

    /// Waits until a connection has ended.
    pub async fn hung_up(&mut self) {
        self.hung_up.wait_for(|count| *count > 0).await.unwrap();
    }
}

/// Reads one request and answers it; `None` if the client disconnected.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &Answer, log: &RequestLog) -> Option<()> {
    let got = read(&mut stream).await?;
    log.requests.lock().unwrap().push(got);
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

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<ReceivedRequest> {
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
    Some(ReceivedRequest { head, body })
}
