//! A client that disconnects at any moment of an upload leaves no request and no body, or a whole request.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use futures_util::stream;
use pipeline::testing::MemoryTransport;
use pipeline::{Payload, Transport};
use tower::ServiceExt;

use crate::service::{FLOWS, Service, state, token};

const ROUTE: &str = r#"
    [[route]]
    path = "/photo"
    flow = "describe"
    body = { multipart = "file", max_bytes = "1 MiB" }
"#;

/// Longer than the inline limit, so that it is stored while it comes.
const FILE_BYTES: usize = 300 << 10;

/// A form whose chunks come one at a time.
fn form() -> Request<Body> {
    let head = "--B\r\nContent-Disposition: form-data; name=\"file\"\r\nContent-Type: image/jpeg\r\n\r\n";
    let mut pieces = vec![Bytes::from_static(head.as_bytes())];
    pieces.extend(vec![b'p'; FILE_BYTES].chunks(30 << 10).map(Bytes::copy_from_slice));
    pieces.push(Bytes::from_static(b"\r\n--B--\r\n"));
    let pieces = stream::unfold(pieces.into_iter(), |mut pieces| async move {
        tokio::task::yield_now().await;
        Some((Ok::<_, Infallible>(pieces.next()?), pieces))
    });
    let request = Request::post("/photo").header("content-type", "multipart/form-data; boundary=B");
    request.header("prefer", "respond-async").body(Body::from_stream(pieces)).unwrap()
}

/// Lets the tasks that outlive their client end: none waits for anything but another task.
async fn settle() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

/// Counts what is left: whole requests, and bodies in the store.
async fn left(transport: &MemoryTransport) -> (u64, usize) {
    (transport.backlog(&token("describe")).await.unwrap().interactive, transport.claim_count())
}

#[tokio::test]
async fn a_client_cut_off_at_any_await_leaves_nothing_or_a_whole_request() {
    let (mut nothing, mut whole) = (0, 0);
    for polls in 0.. {
        let transport = MemoryTransport::with_flows(FLOWS);
        let app = gateway::router(state(transport.clone(), ROUTE, Vec::new()));
        let mut answered = false;
        {
            let mut answer = pin!(app.oneshot(form()));
            for _ in 0..polls {
                // The waker does not matter: the future is polled again in any case.
                answered = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
                if answered {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        settle().await;
        match left(&transport).await {
            (0, 0) => nothing += 1,
            (1, 1) => whole += 1,
            other => panic!("after {polls} polls: {other:?} (requests, bodies)"),
        }
        assert!(!answered || whole > 0);
        if answered {
            break;
        }
    }
    assert!(nothing > 10, "{nothing} cuts left nothing, {whole} a request");
    println!("{nothing} cuts left nothing, {whole} a whole request");
}

#[tokio::test]
async fn a_client_cut_off_after_any_byte_leaves_nothing_or_a_whole_request() {
    let body = [
        b"--B\r\nContent-Disposition: form-data; name=\"file\"\r\nContent-Type: image/jpeg\r\n\r\n".as_slice(),
        &vec![b'p'; FILE_BYTES],
        b"\r\n--B--\r\n",
    ]
    .concat();
    let head = format!(
        "POST /photo HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let text = [head.as_bytes(), &body].concat();
    let ends = (0..text.len()).step_by(text.len() / 20).chain([text.len() - 1]);
    let service = Service::start(ROUTE).await;
    for end in ends {
        drop(service.raw(&text[..end]).await);
    }
    let mut source = service.source("describe").await;
    drop(service.raw(&text).await);
    // Only the complete upload becomes a request.
    let delivery = crate::service::soon(source.next()).await.unwrap();
    let Payload::Bytes(content) = &delivery.payload else { panic!("{:?}", delivery.payload) };
    assert_eq!(pipeline::claims::fetch(&service.transport, content).await.unwrap().len(), FILE_BYTES);
    delivery.ack.settle(pipeline::Settlement::Done).await;
    drop(source);
    let transport = Arc::new(service.stop().await);
    assert_eq!(left(&transport).await, (0, 1));
}
