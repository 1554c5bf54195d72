//! 10,000 idle event streams: the gateway's memory, and its latency for other requests meanwhile.
//!
//! 500 subjects with 20 streams each, every subject from its own loopback address, because an address may have 50
//! streams. Then one more subject asks for 500. This program and the gateway need 11,000 open files each (`ulimit -n`).

use std::net::{Ipv4Addr, SocketAddr};

use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::auth_overhead::{AUTH, serve, token_of};
use crate::caudal::{Caudal, resident};
use crate::statistics::{millis, percentile};

const SUBJECTS: u16 = 500;
/// The default limit per subject.
const STREAMS: usize = 20;
const FILES: u64 = 11_000;
const TRIPS: usize = 2_000;

const CONFIG: &str = r#"
[limits]
connections = 12_000
streams     = 12_000

[flow.wait]
open = true
[[flow.wait.stage]]
use = "respond"
"#;

pub async fn run() {
    println!("\nidle: {} idle event streams of {SUBJECTS} subjects", usize::from(SUBJECTS) * STREAMS);
    if getrlimit(Resource::Nofile).current.is_some_and(|files| files < FILES) {
        println!("  not measured: raise the limit of open files first: ulimit -n {FILES}");
        return;
    }
    // Without a worker the request never ends, and its streams stay open.
    let caudal = serve(&format!("{AUTH}{CONFIG}"), &["--role", "gateway", "--set", "nats.listen=127.0.0.1:0"]).await;
    let observer = token_of("observer");
    let id = send_request(&caudal, &observer).await;
    let (before, quiet) = (resident(caudal.pid()), trips(&caudal, &observer, &id).await);
    let open = open_streams(&caudal, &id).await;
    let (after, busy) = (resident(caudal.pid()), trips(&caudal, &observer, &id).await);
    let text =
        caudal.client.get(caudal.url("/metrics")).bearer_auth(&observer).send().await.unwrap().text().await.unwrap();
    let live = text.lines().find_map(|line| line.strip_prefix("caudal_http_event_streams ")).unwrap();
    println!("  open streams, by the gateway's metric                {live}");
    println!("  resident memory of the gateway                       {} MiB, {} MiB before", after >> 20, before >> 20);
    println!(
        "  memory per stream                                    {:.1} KiB",
        (after - before) as f64 / 1024.0 / open.len() as f64
    );
    for (what, at) in [("p50", 0.5), ("p99", 0.99)] {
        let (busy, quiet) = (percentile(&busy, at), percentile(&quiet, at));
        println!("  GET /v1/requests/ID by another client, {what}           {busy:.2} ms, {quiet:.2} ms before");
    }
    exceed_limit(&caudal, &id).await;
    drop(open);
}

/// Opens the streams of all subjects.
async fn open_streams(caudal: &Caudal, id: &str) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for subject in 0..SUBJECTS {
        let token = token_of(&format!("subject-{subject}"));
        for _ in 0..STREAMS {
            let (status, stream) = stream(caudal, address_of(subject), &token, id).await;
            assert_eq!(status, 200, "subject {subject}");
            open.push(stream);
        }
    }
    open
}

/// One more subject asks for 500 streams.
async fn exceed_limit(caudal: &Caudal, id: &str) {
    let greedy = token_of("greedy");
    let (mut taken, mut refused) = (Vec::new(), 0);
    for number in 0..500 {
        match stream(caudal, address_of(SUBJECTS + number % 200), &greedy, id).await {
            (200, stream) => taken.push(stream),
            (429, _) => refused += 1,
            (other, _) => panic!("a stream was answered with status {other}"),
        }
    }
    println!("  500 streams of one more subject                      {} opened, {refused} refused", taken.len());
}

/// The loopback address of a subject.
fn address_of(subject: u16) -> Ipv4Addr {
    let [high, low] = subject.to_be_bytes();
    Ipv4Addr::new(127, 1 + high, low, 1)
}

/// Sends a request that never ends, and returns its id.
async fn send_request(caudal: &Caudal, token: &str) -> String {
    let request = caudal.client.post(caudal.url("/v1/flows/wait")).bearer_auth(token);
    let answer = request.header("prefer", "respond-async").body("x").send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let answer: Value = answer.json().await.unwrap();
    answer["id"].as_str().unwrap().to_owned()
}

/// Latencies of another client's request for the status of a request, which also reads from the broker.
async fn trips(caudal: &Caudal, token: &str, id: &str) -> Vec<f64> {
    let url = caudal.url(&format!("/v1/requests/{id}"));
    let mut latencies = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let begun = Instant::now();
        let response = caudal.client.get(&url).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
        latencies.push(millis(begun.elapsed()));
    }
    latencies
}

/// Opens a stream from a loopback address; returns after the response head and the first event.
async fn stream(caudal: &Caudal, from: Ipv4Addr, token: &str, id: &str) -> (u16, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let host = caudal.base.strip_prefix("http://").unwrap();
    let mut stream = socket.connect(host.parse().unwrap()).await.unwrap();
    let request =
        format!("GET /v1/requests/{id}/events HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        text.extend_from_slice(&buffer[..count]);
        let whole = String::from_utf8_lossy(&text);
        let status: Option<u16> = whole.split(' ').nth(1).and_then(|status| status.parse().ok());
        if let Some(status) = status.filter(|status| *status != 200 || whole.contains("event: accepted")) {
            return (status, stream);
        }
        assert!(count > 0, "closed: {whole}");
    }
}
