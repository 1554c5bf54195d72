//! Uploads, streams and unread answers do not raise the gateway's memory. A test binary of its own, because the memory
//! of its process is measured; one test at a time.

#![allow(clippy::unwrap_used, reason = "a test panics on what it does not expect")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use gateway::spec::GatewaySpec;
use gateway::{FlowEntry, Gateway, GatewayState, Identity};
use pipeline::spec::{Problems, Sources};
use pipeline::testing::{MemoryTransport, TransportWrapper};
use pipeline::{
    Body, BodyOwner, BoxError, Claim, Content, DeclaredNames, Digest, Outcome, OutcomeKind, RequestId, Token,
    Transport, TransportError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 20;
const FILE_BYTES: usize = 20 << 20;

/// A broker whose object store counts bytes instead of storing them, and whose results are copies, as over a network.
struct Discarding {
    kept: MemoryTransport,
    /// Bytes of whole bodies.
    stored: AtomicU64,
    /// Bytes of all bodies.
    taken: AtomicU64,
}

#[async_trait]
impl TransportWrapper for Discarding {
    fn within(&self) -> &dyn Transport {
        &self.kept
    }

    async fn put_claim(
        &self,
        _: BodyOwner<'_>,
        mut body: BoxStream<'_, Result<Bytes, BoxError>>,
    ) -> Result<Claim, TransportError> {
        let mut length = 0;
        while let Some(chunk) = body.next().await {
            let bytes = chunk.map_err(TransportError::Body)?.len() as u64;
            length += bytes;
            self.taken.fetch_add(bytes, Ordering::Relaxed);
            // Slower than the clients, so that every buffer fills up.
            tokio::task::yield_now().await;
        }
        self.stored.fetch_add(length, Ordering::Relaxed);
        Ok(Claim { id: Token::random(), length, sha256: Digest([0; 32]) })
    }
    async fn drop_claim(&self, _: &Claim) -> Result<(), TransportError> {
        Ok(())
    }

    async fn outcomes(&self, request: &RequestId) -> Result<Vec<Outcome>, TransportError> {
        let mut outcomes = self.kept.outcomes(request).await?;
        for outcome in &mut outcomes {
            if let Body::Inline(bytes) = &mut outcome.content.body {
                *bytes = Bytes::copy_from_slice(bytes);
            }
        }
        Ok(outcomes)
    }
}

const CONFIG: &str = r#"
    [service]
    trusted_proxies = ["127.0.0.0/8"]
    [limits]
    streams = 1000
    streams_per_address = 300
    connections = 1200
    write_ms = 1500
    [[route]]
    path = "/twenty"
    flow = "describe"
    body = { raw = true, max_bytes = "20 MiB" }
    [[route]]
    path = "/photo"
    flow = "describe"
    body = { multipart = "file", max_bytes = "32 MiB" }
"#;

fn state(transport: Arc<Discarding>) -> GatewayState {
    let mut sources = Sources::default();
    sources.add("test.toml", CONFIG);
    let mut problems = Problems::default();
    let names = DeclaredNames { flows: ["describe".to_owned()].into(), ..DeclaredNames::default() };
    let spec = GatewaySpec::read(&mut sources.parse(&mut problems).root, &names, &mut problems);
    spec.check(&mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    let flow = FlowEntry {
        name: Token::new("describe").unwrap(),
        about: String::new(),
        open: false,
        deadline: None,
        takes_json: false,
        backlog: 100,
        then: Vec::new(),
    };
    GatewayState::new(Gateway {
        spans: None,
        webhook_caller: None,
        transport,
        identity: Identity::open(&spec.auth).unwrap(),
        service: spec.service,
        limits: spec.limits,
        routes: spec.routes,
        flows: vec![flow],
        flow_stats: Arc::new(Vec::new),
        checks: Vec::new(),
        render_metrics: Arc::new(|| Box::pin(async { Ok(String::new()) })),
    })
}

/// A gateway; the only one that is measured while this value exists.
struct Measured {
    transport: Arc<Discarding>,
    address: SocketAddr,
    _alone: MutexGuard<'static, ()>,
}

impl Measured {
    async fn start() -> Self {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        let kept = MemoryTransport::with_flows([("describe", 100)]);
        let transport = Arc::new(Discarding { kept, stored: AtomicU64::new(0), taken: AtomicU64::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(gateway::serve(listener, state(Arc::clone(&transport)), CancellationToken::new()));
        Self { transport, address, _alone: alone }
    }

    async fn send(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }
}

/// Sends one form over a socket of its own, from shared bytes, and returns the status line.
async fn upload(address: SocketAddr, piece: Bytes) -> String {
    let head = "--B\r\nContent-Disposition: form-data; name=\"file\"\r\nContent-Type: image/jpeg\r\n\r\n";
    let tail = "\r\n--B--\r\n";
    let length = head.len() + FILE_BYTES + tail.len();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /photo HTTP/1.1\r\nHost: localhost\r\nPrefer: respond-async\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Content-Type: multipart/form-data; boundary=B\r\n\r\n{head}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    for _ in 0..FILE_BYTES / piece.len() {
        stream.write_all(&piece).await.unwrap();
    }
    stream.write_all(tail.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Peak resident memory since the last reset, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Resets the peak and returns the resident memory now.
fn reset_peak() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak()
}

fn assert_growth(before: u64, allowed: u64) {
    let growth = peak().saturating_sub(before);
    assert!(growth < allowed, "memory grew by {} KiB, allowed are {}", growth >> 10, allowed >> 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_large_uploads_are_not_in_memory() {
    let measured = Measured::start().await;
    let piece = Bytes::from(vec![b'p'; 64 << 10]);
    assert!(upload(measured.address, piece.clone()).await.contains("202"));
    let before = reset_peak();
    let uploads: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(upload(measured.address, piece.clone()))).collect();
    for upload in uploads {
        assert!(upload.await.unwrap().contains("202"));
    }
    assert_eq!(measured.transport.stored.load(Ordering::Relaxed), ((CLIENTS + 1) * FILE_BYTES) as u64);
    // Whole bodies would take 20 MiB for each of 20 clients.
    assert_growth(before, 32 << 20);
}

/// Sends a head, then chunks while the server reads them; returns the answer and the bytes sent.
async fn pour(measured: &Measured, headers: &str, piece: &[u8], pieces: usize) -> (String, usize) {
    let text = format!("POST /twenty HTTP/1.1\r\nHost: localhost\r\nPrefer: respond-async\r\n{headers}\r\n");
    let (mut reader, mut writer) = measured.send(&text).await.into_split();
    let piece = piece.to_vec();
    let pouring = tokio::spawn(async move {
        for sent in 0..pieces {
            if writer.write_all(&piece).await.is_err() {
                return sent * piece.len();
            }
        }
        // Closes its own side, in case the server waits for that.
        drop(writer.shutdown().await);
        pieces * piece.len()
    });
    let mut answer = Vec::new();
    // A reset is an end too.
    drop(reader.read_to_end(&mut answer).await);
    (String::from_utf8_lossy(&answer).into_owned(), pouring.await.unwrap())
}

/// 21 MB to a route that takes 20, in three ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_neither_stored_nor_read() {
    let measured = Measured::start().await;
    let most = 20 << 20;
    let piece = vec![b'p'; 64 << 10];
    let chunk = [b"10000\r\n".as_slice(), &piece, b"\r\n"].concat();
    // Allocates what is allocated once.
    pour(&measured, "Content-Length: 65536\r\nConnection: close\r\n", &piece, 1).await;
    let taken = || measured.transport.taken.load(Ordering::Relaxed);
    let (before, taken_before) = (reset_peak(), taken());

    let (answer, _) = pour(&measured, "Content-Length: 22020096\r\n", &piece, 336).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(taken(), taken_before, "refused for its length");

    let (answer, _) = pour(&measured, "Transfer-Encoding: chunked\r\n", &chunk, 336).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let read = taken() - taken_before;
    assert!(read <= most + (64 << 10), "{read} bytes were read");

    // Announces 1 KiB and sends a GiB: the rest is not a request.
    let (answer, sent) = pour(&measured, "Content-Length: 1024\r\n", &piece, 16 << 10).await;
    assert!(answer.starts_with("HTTP/1.1 202") && answer.contains("HTTP/1.1 4"), "{answer}");
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    assert_growth(before, 8 << 20);
}

/// As many streams as the default limit. The memory of this test's clients is counted as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_streams_are_cheap() {
    const STREAMS: usize = 1_000;
    let measured = Measured::start().await;
    let (id, flow) = (Token::new("idle").unwrap(), Token::new("describe").unwrap());
    let begun = Outcome::new(OutcomeKind::Accepted, 0, flow, Content::inline("application/json", "{}"));
    measured.transport.kept.publish_outcome(&id, &begun).await.unwrap();
    // Allocates what is allocated once.
    upload(measured.address, Bytes::from(vec![b'p'; 64 << 10])).await;
    let before = reset_peak();
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let address = format!("198.51.100.{}", number % 200);
        let ask =
            format!("GET /v1/requests/idle/events HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\n\r\n");
        let mut stream = measured.send(&ask).await;
        let mut begun = [0; 12];
        stream.read_exact(&mut begun).await.unwrap();
        assert_eq!(&begun, b"HTTP/1.1 200");
        streams.push(stream);
    }
    assert_growth(before, STREAMS as u64 * (32 << 10));
}

/// A stream of 10 MB.
const PARTS: u32 = 500;
const PART_BYTES: usize = 20 << 10;

fn ask_for(id: &RequestId, after: Option<u32>) -> String {
    let after = after.map(|after| format!("Last-Event-ID: {after}\r\n")).unwrap_or_default();
    // HTTP/1.0, so that the body is not chunked.
    format!("GET /v1/requests/{id}/events HTTP/1.0\r\n{after}\r\n")
}

/// Reads an answer until the connection ends in any way, and returns its body.
async fn body_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    answer.split_off(head + 4)
}

/// The id of the last complete event, and the bytes up to its end.
fn last_whole(body: &[u8]) -> (u32, usize) {
    let end = body.windows(2).rposition(|bytes| bytes == b"\n\n").expect("an event") + 2;
    let text = std::str::from_utf8(&body[..end]).unwrap();
    let id = text.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap();
    (id.parse().unwrap(), end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_cost_little_are_disconnected_and_resume() {
    const READERS: usize = 200;
    let measured = Measured::start().await;
    let (id, flow) = (Token::new("long").unwrap(), Token::new("describe").unwrap());
    for ordinal in 0..=PARTS {
        let kind = if ordinal == PARTS { OutcomeKind::Done } else { OutcomeKind::Data };
        let text = format!("\"{ordinal}{}\"", "t".repeat(PART_BYTES));
        let outcome = Outcome::new(kind, ordinal, flow.clone(), Content::inline("application/json", text));
        measured.transport.kept.publish_outcome(&id, &outcome).await.unwrap();
    }
    let whole = body_of(&mut measured.send(&ask_for(&id, None)).await).await;
    assert!(whole.len() > PARTS as usize * PART_BYTES);

    let before = reset_peak();
    let mut slow = Vec::new();
    for _ in 0..READERS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let mut stream = socket.connect(measured.address).await.unwrap();
        stream.write_all(ask_for(&id, None).as_bytes()).await.unwrap();
        let mut begun = [0; 12];
        stream.read_exact(&mut begun).await.unwrap();
        assert_eq!(&begun[9..], b"200");
        slow.push(stream);
    }
    // A client that reads is served; what it has read takes 10 MB of this process.
    let read = body_of(&mut measured.send(&ask_for(&id, None)).await).await;
    assert!(read == whole, "{} bytes of {}", read.len(), whole.len());
    // Its own copy, and histories that are read at the same time.
    let others = 2 * whole.len() as u64 + 4 * whole.len() as u64;
    assert_growth(before, READERS as u64 * (128 << 10) + others);

    // A client that was disconnected resumes where it was.
    let mut resumed = 0;
    for mut stream in slow.into_iter().take(20) {
        let mut body = body_of(&mut stream).await;
        if body.len() == whole.len() {
            continue;
        }
        let (last, end) = last_whole(&body);
        body.truncate(end);
        body.extend(body_of(&mut measured.send(&ask_for(&id, Some(last))).await).await);
        assert!(body == whole, "{} bytes of {}", body.len(), whole.len());
        resumed += 1;
    }
    assert!(resumed > 0, "no client was disconnected");
}
