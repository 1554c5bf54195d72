//! Large uploads by many clients at once do not raise the gateway's memory. A process of its own, because it is measured.

#![allow(clippy::unwrap_used, reason = "a test panics on what it does not expect")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use gateway::spec::GatewaySpec;
use gateway::{Gateway, GatewayState, Identity};
use pipeline::spec::{Problems, Sources};
use pipeline::testing::{MemoryTransport, Wrapped};
use pipeline::{BoxError, Claim, Digest, Names, Token, Transport, TransportError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 20;
const FILE_BYTES: usize = 20 << 20;
/// A body held whole would take 20 MiB for each of 20 clients.
const ALLOWED_GROWTH: u64 = 32 << 20;

/// A broker whose object store keeps nothing but counts.
struct Discarding {
    kept: MemoryTransport,
    stored: AtomicU64,
}

#[async_trait]
impl Wrapped for Discarding {
    fn within(&self) -> &dyn Transport {
        &self.kept
    }

    async fn put_claim(&self, mut body: BoxStream<'_, Result<Bytes, BoxError>>) -> Result<Claim, TransportError> {
        let mut length = 0;
        while let Some(chunk) = body.next().await {
            length += chunk.map_err(TransportError::Body)?.len() as u64;
            // Slower than the clients, so that whatever buffers fills up.
            tokio::task::yield_now().await;
        }
        self.stored.fetch_add(length, Ordering::Relaxed);
        Ok(Claim { id: Token::random(), length, sha256: Digest([0; 32]) })
    }
    async fn drop_claim(&self, _: &Claim) -> Result<(), TransportError> {
        Ok(())
    }
}

const CONFIG: &str = r#"
    [[route]]
    path = "/photo"
    flow = "describe"
    body = { multipart = "file", max_bytes = "32 MiB" }
"#;

fn state(transport: Arc<Discarding>) -> GatewayState {
    let mut sources = Sources::default();
    sources.add("test.toml", CONFIG);
    let mut problems = Problems::default();
    let names = Names { flows: ["describe".to_owned()].into(), ..Names::default() };
    let spec = GatewaySpec::read(&mut sources.parse(&mut problems).root, &names, &mut problems);
    spec.check(&mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    GatewayState::new(Gateway {
        spans: None,
        transport,
        identity: Identity::open(&spec.auth).unwrap(),
        service: spec.service,
        limits: spec.limits,
        routes: spec.routes,
        flows: Vec::new(),
        figures: Arc::new(Vec::new),
        checks: Vec::new(),
        render_metrics: Arc::new(String::new),
    })
}

/// Sends one form over a socket of its own, from shared bytes, and returns the status line.
async fn upload(address: std::net::SocketAddr, piece: Bytes) -> String {
    let head = "--B\r\nContent-Disposition: form-data; name=\"file\"\r\nContent-Type: image/jpeg\r\n\r\n";
    let tail = "\r\n--B--\r\n";
    let length = head.len() + FILE_BYTES + tail.len();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /photo HTTP/1.1\r\nHost: h\r\nPrefer: respond-async\r\nConnection: close\r\nContent-Length: {length}\r\n\
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

/// Highest resident memory so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_uploads_side_by_side_are_not_held() {
    let kept = MemoryTransport::with_flows([("describe", 100)]);
    let transport = Arc::new(Discarding { kept, stored: AtomicU64::new(0) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(gateway::serve(listener, state(Arc::clone(&transport)), CancellationToken::new()));
    let piece = Bytes::from(vec![b'p'; 64 << 10]);
    assert!(upload(address, piece.clone()).await.contains("202"));
    let before = peak();
    let uploads: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(upload(address, piece.clone()))).collect();
    for upload in uploads {
        assert!(upload.await.unwrap().contains("202"));
    }
    let growth = peak() - before;
    assert_eq!(transport.stored.load(Ordering::Relaxed), ((CLIENTS + 1) * FILE_BYTES) as u64);
    assert!(growth < ALLOWED_GROWTH, "memory grew by {} MiB", growth >> 20);
    println!("peak resident memory grew by {} KiB", growth >> 10);
}
