//! Uploads that are refused before they were read: the answer reaches clients that send everything before they read.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pipeline::testing::PATIENCE;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::service::{Service, read_to_end, read_until, soon};
use crate::tokens::issuers;

/// Longer than what sockets buffer and what a closing connection still reads.
const LENGTH: usize = 24 << 20;

const CHUNK: usize = 64 << 10;

const ROUTES: &str = r#"
    [[route]]
    path = "/raw"
    flow = "describe"
    body = { raw = true, types = ["image/jpeg"], max_bytes = "300 KiB" }
    [[route]]
    path = "/large"
    flow = "describe"
    body = { raw = true, max_bytes = "64 MiB" }
    limit = { rate = "1/hour", per = "client" }
    [[route]]
    path = "/narrow"
    flow = "narrow"
    body = { raw = true, max_bytes = "64 MiB" }
"#;

/// The head of an upload, and how its body is framed.
#[derive(Clone, Copy)]
struct Upload {
    line: &'static str,
    media_type: &'static str,
    is_chunked: bool,
}

const fn upload(line: &'static str, media_type: &'static str) -> Upload {
    Upload { line, media_type, is_chunked: false }
}

/// Writes the whole request, then reads its answer; then asks for `/health` over the same connection. Returns both
/// status lines. Blocks.
fn write_then_read(address: SocketAddr, upload: Upload) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let Upload { line, media_type, is_chunked } = upload;
    let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n");
    let chunk = vec![b'x'; CHUNK];
    if is_chunked {
        write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n").unwrap();
        for _ in 0..LENGTH / chunk.len() {
            stream.write_all(&[format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    } else {
        write!(stream, "{head}Content-Length: {LENGTH}\r\n\r\n").unwrap();
        for _ in 0..LENGTH / chunk.len() {
            stream.write_all(&chunk).unwrap();
        }
    }
    let first = answer(&mut stream);
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    (first, answer(&mut stream))
}

/// Reads one answer with its body; returns its status line.
fn answer(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        read.extend(byte);
    }
    let head = String::from_utf8(read).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    stream.read_exact(&mut vec![0; length]).unwrap();
    head.lines().next().unwrap().to_owned()
}

async fn refused(service: &Service, upload: Upload, status: &str) {
    let address = service.address;
    let sent = tokio::task::spawn_blocking(move || write_then_read(address, upload));
    let (first, second) = soon(sent).await.unwrap();
    assert!(first.contains(status), "{} {}: {first}", upload.line, upload.media_type);
    assert!(second.contains("200"), "the connection is used again: {second}");
}

#[tokio::test]
async fn a_client_that_writes_all_before_it_reads_gets_its_answer() {
    let service = Service::start(ROUTES).await;
    for (upload, status) in [
        (upload("POST /raw", "image/jpeg"), "413"),
        (upload("POST /raw", "text/html"), "415"),
        (upload("POST /nothing", "image/jpeg"), "404"),
        (upload("PUT /raw", "image/jpeg"), "405"),
        (upload("DELETE /v1/requests/a.b", "image/jpeg"), "400"),
    ] {
        refused(&service, upload, status).await;
        refused(&service, Upload { is_chunked: true, ..upload }, status).await;
    }
}

#[tokio::test]
async fn an_upload_without_a_key_gets_its_401() {
    let service = Service::start(&format!("{}{ROUTES}", issuers())).await;
    refused(&service, upload("POST /raw", "image/jpeg"), "401").await;
}

#[tokio::test]
async fn an_upload_over_its_rate_or_to_a_full_queue_gets_its_answer() {
    let service = Service::start(ROUTES).await;
    let taken = service.post("/large").header("prefer", "respond-async").body("x").send().await.unwrap();
    assert_eq!(taken.status(), 202);
    refused(&service, upload("POST /large", "image/jpeg"), "429").await;
    let taken = service.post("/narrow").header("prefer", "respond-async").body("x").send().await.unwrap();
    assert_eq!(taken.status(), 202);
    refused(&service, upload("POST /narrow", "image/jpeg"), "503").await;
}

/// A body, and how much of it the connection has taken.
fn counted(length: usize) -> (impl Body<Data = Bytes, Error = Infallible> + Unpin, watch::Receiver<usize>) {
    let (taken, seen) = watch::channel(0);
    let chunks = stream::iter(0..length / CHUNK).map(move |_| {
        taken.send_modify(|taken| *taken += CHUNK);
        Ok(Frame::data(Bytes::from_static(&[0; CHUNK])))
    });
    (StreamBody::new(chunks), seen)
}

#[tokio::test]
async fn over_http2_the_rest_is_taken_too() {
    let service = Service::start(ROUTES).await;
    let stream = tokio::net::TcpStream::connect(service.address).await.unwrap();
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        let (body, mut taken) = counted(LENGTH);
        let request = Request::post(service.url("/raw")).header("content-type", "image/jpeg").body(body).unwrap();
        let answer = soon(client.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), 413);
        soon(taken.wait_for(|taken| *taken == LENGTH)).await.unwrap();
        let text = soon(answer.into_body().collect()).await.unwrap().to_bytes();
        assert!(text.starts_with(b"{") && text.ends_with(b"}"), "{text:?}");
    }
}

#[tokio::test]
async fn what_will_not_be_read_closes_the_connection_and_says_so() {
    let service = Service::start(ROUTES).await;
    for head in ["Content-Length: 9000000000\r\n", "Content-Length: 400000\r\nExpect: 100-continue\r\n"] {
        let head = format!("POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n{head}\r\n");
        let answer = read_to_end(&mut service.raw(head).await).await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 413") && answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn many_refused_uploads_that_stay_open_do_not_keep_others_out() {
    let service = Service::start(ROUTES).await;
    let head = "POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n";
    let body = format!("{:x}\r\n{}\r\n", 400_000, "x".repeat(400_000));
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = service.raw(format!("{head}\r\n{body}")).await;
        read_until(&mut stream, "too_large").await;
        open.push(stream);
    }
    // The next one is not waited for: its answer says so, and the connection ends.
    let last = read_to_end(&mut service.raw(format!("{head}\r\n{body}")).await).await.to_ascii_lowercase();
    assert!(last.starts_with("http/1.1 413") && last.contains("connection: close"), "{last}");
    let small = service.post("/v1/flows/nothing").json(&json!({})).send().await.unwrap();
    assert_eq!((small.status().as_u16(), small.headers().get("connection")), (404, None));
    // A sender that ends its body frees its place, and its connection goes on.
    let mut first = open.remove(0);
    first.write_all(b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut first, "200 OK").await;
}
