//! Connections that misbehave, and graceful shutdown.

use pipeline::Content;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::service::{Service, finish, problem, read_to_end, read_until, soon};

const HASTY: &str = "[limits]\nheader_ms = 200\n";

#[tokio::test]
async fn clients_that_never_finish_a_header_are_closed_and_others_served() {
    let service = Service::start(HASTY).await;
    let mut slow = Vec::new();
    for beginning in
        ["", "G", "PRI", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nA:", "GET /health HTTP/1.1\r\nHost: localhost\r\n"]
    {
        slow.push((beginning, service.raw(beginning).await));
    }
    assert_eq!(service.get("/health").send().await.unwrap().status(), 200);
    for (beginning, mut stream) in slow {
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains("200 OK"), "{beginning:?}: {answer}");
    }
}

#[tokio::test]
async fn connections_are_limited_and_become_free_again() {
    let service = Service::start("[limits]\nheader_ms = 200\nconnections = 2\n").await;
    let hold: Vec<TcpStream> = vec![service.raw("").await, service.raw("G").await];
    // Waits in the backlog until the two silent connections are closed.
    assert_eq!(service.get("/health").send().await.unwrap().status(), 200);
    drop(hold);
}

#[tokio::test]
async fn oversized_heads_are_refused() {
    let service = Service::start("").await;
    let many: String = (0..100).map(|i| format!("X-{i}: 1\r\n")).collect();
    let cases = [
        (format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), "431"),
        (format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "y".repeat(20_000)), "431"),
        (format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: 1\r\n".repeat(10_000)), "431"),
        (format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "y".repeat(1 << 20)), "431"),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "y".repeat(9_000)), "414"),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "y".repeat(100 << 10)), "4"),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\n\r\n".into(), "400"),
        ("nonsense\r\n\r\n".into(), "400"),
    ];
    for (head, status) in cases {
        let mut stream = service.raw(&head).await;
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{:.80}: {answer}", head);
    }
}

#[tokio::test]
async fn a_client_that_begins_with_http2_is_served_http2() {
    let service = Service::start("").await;
    let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut stream = service.raw([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &empty_settings].concat()).await;
    let mut head = [0; 9];
    soon(stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[3], 4, "the server begins with SETTINGS: {head:?}");
}

#[tokio::test]
async fn a_shutdown_lets_answers_finish_and_ends_streams() {
    let service = Service::start("[[route]]\npath = \"/ask\"\nflow = \"describe\"\n").await;
    let mut source = service.source("describe").await;
    let asking = tokio::spawn(service.post("/ask").send());
    let delivery = soon(source.next()).await.unwrap();
    let streamed = service.post("/v1/flows/documents").header("accept", "text/event-stream").json(&json!({}));
    let streamed = streamed.send().await.unwrap();
    service.begin_stop();
    let text = soon(streamed.text()).await.unwrap();
    assert!(text.contains("event: accepted") && !text.contains("event: done"), "{text}");
    finish(&service.transport, delivery, Content::json(&json!({"late": true}))).await;
    let answer: Value = soon(asking).await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(answer, json!({"late": true}));
    service.stop().await;
}

#[tokio::test]
async fn at_half_of_the_grace_waiting_requests_are_answered_202() {
    let config = "[service]\ngrace_ms = 400\n[[route]]\npath = \"/ask\"\nflow = \"describe\"\n";
    let service = Service::start(config).await;
    let mut source = service.source("describe").await;
    let asking = tokio::spawn(service.post("/ask").send());
    let _held = soon(source.next()).await.unwrap();
    service.begin_stop();
    assert_eq!(soon(asking).await.unwrap().unwrap().status(), 202);
    service.stop().await;
}

/// A request that is written, but not read yet, when the shutdown begins: the test and the service share a thread.
async fn check_answered_at_shutdown(service: Service, mut stream: TcpStream) {
    service.begin_stop();
    let answer = read_to_end(&mut stream).await;
    let heads = answer.matches("HTTP/1.1 200 OK").count();
    assert!(heads == 1 && answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    service.stop().await;
}

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn a_shutdown_answers_what_waits_in_the_systems_backlog() {
    let service = Service::start("").await;
    let mut stream = std::net::TcpStream::connect(service.address).unwrap();
    std::io::Write::write_all(&mut stream, HEALTH.as_bytes()).unwrap();
    stream.set_nonblocking(true).unwrap();
    check_answered_at_shutdown(service, TcpStream::from_std(stream).unwrap()).await;
}

#[tokio::test]
async fn a_shutdown_answers_the_first_request_of_a_connection() {
    let service = Service::start("").await;
    let stream = service.raw("").await;
    // Answered by the time at which the silent connection was accepted.
    assert_eq!(service.get("/health").send().await.unwrap().status(), 200);
    stream.try_write(HEALTH.as_bytes()).unwrap();
    check_answered_at_shutdown(service, stream).await;
}

#[tokio::test]
async fn a_shutdown_answers_the_next_request_of_a_connection() {
    let service = Service::start("").await;
    let mut stream = service.raw(HEALTH).await;
    read_until(&mut stream, "ok").await;
    stream.try_write(HEALTH.as_bytes()).unwrap();
    check_answered_at_shutdown(service, stream).await;
}

#[tokio::test]
async fn a_kept_alive_connection_serves_again_after_a_refusal() {
    let service = Service::start("").await;
    problem(service.get("/nothing").send().await.unwrap(), 404, "no_route").await;
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut stream = service.raw(request).await;
    read_until(&mut stream, "ok").await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    read_until(&mut stream, "ok").await;
}
