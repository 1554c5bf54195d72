//! A request whose end is ambiguous is refused and its connection closed.

use pipeline::Transport;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::service::{Service, read_to_end, read_until, token};

/// The request that a smuggler hides in another one.
const SMUGGLED: &str = "GET /v1/flows HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Sends `text` and returns the statuses of all answers until the connection is closed.
async fn statuses(service: &Service, text: &str) -> Vec<u16> {
    let mut stream = service.raw(text).await;
    let answers = read_to_end(&mut stream).await;
    answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect()
}

/// A POST with these headers, and a request after it.
fn post(headers: &str, body: &str) -> String {
    format!(
        "POST /v1/flows/describe HTTP/1.1\r\nHost: localhost\r\nPrefer: respond-async\r\n{headers}\r\n{body}{SMUGGLED}"
    )
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_their_connection_closed() {
    let service = Service::start("").await;
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    let cases = [
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunked),
        post("Transfer-Encoding: chunked\r\nContent-Length: 15\r\n", chunked),
        post("Transfer-Encoding : chunked\r\n", chunked),
        post("Content-Length : 5\r\n", "hello"),
        post("Content-Length: 5\r\n\tX: folded\r\n", "hello"),
        post("X: 1\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "hello"),
        post("Content-Length: 5\n", "hello"),
        post("X: 1\nContent-Length: 5\r\n", "hello"),
        post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
        post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        post("Content-Length: 5, 5\r\n", "hello"),
        post("Content-Length: +5\r\n", "hello"),
        post("Content-Length: 0x5\r\n", "hello"),
        post("Content-Length: 99999999999999999999\r\n", "hello"),
        post("Transfer-Encoding: gzip, chunked\r\n", chunked),
        post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", chunked),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunked),
        post("Transfer-Encoding: xchunked\r\n", chunked),
        post("Transfer-Encoding: chunked, identity\r\n", chunked),
        post("Transfer-Encoding: \u{b}chunked\r\n", chunked),
        post("X: a\0b\r\nContent-Length: 5\r\n", "hello"),
        post("X: a\rb\r\nContent-Length: 5\r\n", "hello"),
        post("Host: other\r\nContent-Length: 5\r\n", "hello"),
        "\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\nHost: localhost\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\r\nHost: localhost\r\n\n".to_owned(),
        "GET /health HTTP/1.1\r\n\r\n".to_owned(),
        " GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "POST /v1/flows/describe HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
    ];
    let mut wrong = Vec::new();
    for text in cases {
        let got = statuses(&service, &text).await;
        if got != [400] {
            wrong.push((text, got));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(service.transport.backlog(&token("describe")).await.unwrap().interactive, 0);
}

#[tokio::test]
async fn ambiguous_chunks_make_no_request() {
    let service = Service::start("").await;
    for body in
        ["5\nhello\n0\n\n", "5 \r\nhello\r\n0\r\n\r\n", "0\r\n\n", "+5\r\nhello\r\n0\r\n\r\n", "5\r\nhello0\r\n\r\n"]
    {
        let got = statuses(&service, &post("Transfer-Encoding: chunked\r\n", body)).await;
        assert_eq!(got, [400], "{body:?}");
    }
    assert_eq!(service.transport.backlog(&token("describe")).await.unwrap().interactive, 0);
}

#[tokio::test]
async fn a_refusal_comes_after_the_answers_of_the_requests_before_it() {
    let service = Service::start("").await;
    let good = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let sized = "POST /v1/flows/describe HTTP/1.1\r\nHost: localhost\r\nPrefer: respond-async\r\nContent-Length: 7\r\n\r\na\nb\r\n\r\n";
    let chunked = "POST /v1/flows/describe HTTP/1.1\r\nHost: localhost\r\nPrefer: respond-async\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3;x=y\r\na\nb\r\n0\r\nTrailer: 1\r\n\r\n";
    let text = [good, sized, chunked, good, "GET /health HTTP/1.1\nHost: localhost\r\n\r\n", good].concat();
    assert_eq!(statuses(&service, &text).await, [200, 202, 202, 200, 400]);
    assert_eq!(service.transport.backlog(&token("describe")).await.unwrap().interactive, 2);
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte() {
    let service = Service::start("").await;
    service.echo("describe").await;
    let mut stream = service.raw("").await;
    let text = "POST /v1/flows/describe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n0\r\n\r\n";
    for _ in 0..2 {
        for byte in text.bytes() {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let answer = read_until(&mut stream, "}]}").await;
        let seen: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&seen["parts"][0]["length"], &seen["parts"][0]["sum"]), (&3.into(), &(97 + 10 + 98).into()));
    }
}
