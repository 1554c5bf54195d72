//! The gateway's round trip with authentication, rate limit and traces, beside one without.
//!
//! The same flow in three processes, one request at a time, alternating.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::caudal::{Caudal, Folder};
use crate::statistics::{ROUNDS, median, millis, percentile};

const TRIPS: usize = 1_000;
const WARM_UP: usize = 200;
const BODY: &str = "{\"text\":\"the quick brown fox\"}";

const FLOW: &str = "[flow.echo]\n[[flow.echo.stage]]\nuse = \"respond\"\n";
const ROUTE: &str = "[[route]]\npath = \"/echo\"\nflow = \"echo\"\nbody = { json = true }\n";
const LIMITED: &str = "limit = { rate = \"100000000/min\", per = \"client\" }\n";

/// Secrets that the services read from their environment.
pub const KEY: &str = "bench-key-0123456789abcdef";
const SIGNING: &str = "bench-secret-0123456789abcdef0123456789";
pub const SECRETS: [(&str, &str); 2] = [("BENCH_KEY", KEY), ("BENCH_SIGNING", SIGNING)];

/// An API key and a JWT issuer.
pub const AUTH: &str = r#"
[auth.key.bench]
key    = { env = "BENCH_KEY" }
tenant = "bench"

[auth.jwt.login]
algorithm    = "HS256"
issuer       = "https://login"
audience     = "caudal"
tenant_claim = "org"
secret       = { env = "BENCH_SIGNING" }
"#;

/// A JWT of a subject.
pub fn token_of(subject: &str) -> String {
    let claims =
        json!({ "iss": "https://login", "aud": "caudal", "sub": subject, "org": "bench", "exp": 4_000_000_000_u64 });
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SIGNING.as_bytes())).unwrap()
}

/// Starts a service with this config text.
pub async fn serve(text: &str, args: &[&str]) -> Caudal {
    let folder = Folder::new();
    let file = folder.path().join("bench.toml");
    std::fs::write(&file, text).unwrap();
    let args: Vec<&str> = [file.to_str().unwrap()].into_iter().chain(args.iter().copied()).collect();
    let caudal = Caudal::serve_with(Folder::new(), &args, &SECRETS).await;
    drop(folder);
    caudal
}

pub async fn run() {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let traced = format!("[telemetry]\notlp = \"http://{}\"\n", collector.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = collector.accept().await {
            tokio::spawn(drain(stream));
        }
    });
    let plain = serve(&format!("{FLOW}{ROUTE}"), &[]).await;
    let authenticated = serve(&format!("{AUTH}{FLOW}{ROUTE}"), &[]).await;
    let all = serve(&format!("{AUTH}{traced}{FLOW}{ROUTE}{LIMITED}"), &[]).await;
    let token = token_of("ann");
    let sides: [(&str, &Caudal, Option<&str>); 4] = [
        ("no authentication", &plain, None),
        ("an API key", &authenticated, Some(KEY)),
        ("a JWT (HS256)", &authenticated, Some(&token)),
        ("a JWT, rate limit, every request traced", &all, Some(&token)),
    ];
    let mut rounds: [Vec<Vec<f64>>; 4] = Default::default();
    for round in 0..=ROUNDS {
        for ((_, caudal, credential), measured) in sides.iter().zip(&mut rounds) {
            let latencies = trips(caudal, *credential, if round == 0 { WARM_UP } else { TRIPS }).await;
            if round > 0 {
                measured.push(latencies);
            }
        }
    }
    println!("\nauth: {TRIPS} round trips of a small JSON, one at a time, medians of {ROUNDS} rounds");
    for ((what, ..), rounds) in sides.iter().zip(&rounds) {
        let of = |at: f64| median(&rounds.iter().map(|round| percentile(round, at)).collect::<Vec<_>>());
        println!("  {what:<44} p50 {:.3} ms  p99 {:.3} ms", of(0.5), of(0.99));
    }
}

async fn trips(caudal: &Caudal, credential: Option<&str>, trips: usize) -> Vec<f64> {
    let url = caudal.url("/echo");
    let mut latencies = Vec::with_capacity(trips);
    for _ in 0..trips {
        let mut request = caudal.client.post(&url).header("content-type", "application/json").body(BODY);
        if let Some(credential) = credential {
            request = request.bearer_auth(credential);
        }
        let begun = Instant::now();
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.bytes().await.unwrap().len(), BODY.len());
        latencies.push(millis(begun.elapsed()));
    }
    latencies
}

/// A trace collector that accepts everything and stores nothing: answers each complete request with 200.
async fn drain(mut stream: TcpStream) {
    let mut buffer = vec![0; 1 << 20];
    let mut text = Vec::new();
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        text.extend_from_slice(&buffer[..count]);
        let Some(head) = text.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let headers = String::from_utf8_lossy(&text[..head]).to_ascii_lowercase();
        let length = headers.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if text.len() >= head + 4 + length.unwrap_or(0) {
            text.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    }
}
