//! `/v1/tail/{flow}`: live events as server-sent events and as a WebSocket, and which clients may open one.

use futures_util::{SinkExt, StreamExt};
use pipeline::{DeadLetter, Envelope, Payload, Rejection, RequestId, Submission, Transport};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::service::{Service, problem, soon, token};
use crate::tokens::{good, issuers};

type Socket = WebSocketStream<TcpStream>;

async fn connect(service: &Service, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
    let mut request = format!("ws://{}{path}", service.address).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(service.address).await.unwrap();
    soon(client_async(request, stream)).await.map(|(socket, _)| socket)
}

async fn status_of(service: &Service, path: &str, headers: &[(&'static str, &str)]) -> u16 {
    match connect(service, path, headers).await {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

async fn next_text(socket: &mut Socket) -> Value {
    loop {
        match soon(socket.next()).await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn submit(service: &Service, flow: &str, body: &Value) {
    let request = service.post(&format!("/v1/flows/{flow}")).header("prefer", "respond-async");
    assert_eq!(request.json(body).send().await.unwrap().status(), 202);
}

#[tokio::test]
async fn events_are_seen_live_as_a_stream_and_over_a_socket() {
    let service = Service::start("[limits]\nheartbeat_ms = 20\n").await;
    let mut stream = service.get("/v1/tail/documents").send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut socket = connect(&service, "/v1/tail/documents", &[]).await.unwrap();
    let hostile = json!({"text": "a\rdata: x\n\nevent: done\u{2028}"});
    submit(&service, "describe", &json!({})).await;
    submit(&service, "documents", &hostile).await;
    let seen = next_text(&mut socket).await;
    assert_eq!((&seen["data"], &seen["flow"], &seen["lane"]), (&hostile, &json!("documents"), &json!("interactive")));
    let mut text = String::new();
    while !text.contains("event: event") || !text.ends_with("\n\n") {
        text.push_str(std::str::from_utf8(&soon(stream.chunk()).await.unwrap().unwrap()).unwrap());
    }
    let lines: Vec<&str> = text.split(['\n', '\r']).filter(|line| !line.is_empty() && *line != ": hb").collect();
    assert_eq!((lines.len(), lines[0]), (2, "event: event"), "{text:?}");
    let data: Value = serde_json::from_str(lines[1].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(data, seen);
}

#[tokio::test]
async fn readers_of_a_flow_come_and_go() {
    let service = Service::start("").await;
    for round in 0..5 {
        let mut sockets = Vec::new();
        for _ in 0..3 {
            sockets.push(connect(&service, "/v1/tail/documents", &[]).await.unwrap());
        }
        // One reader never reads.
        let _deaf = sockets.pop();
        for number in 0..10 {
            submit(&service, "documents", &json!({ "round": round, "number": number })).await;
            for socket in &mut sockets {
                assert_eq!(next_text(socket).await["data"], json!({ "round": round, "number": number }));
            }
        }
    }
}

/// An event whose parameters hold secrets.
fn secretive() -> Submission {
    let mut envelope = Envelope::new(token("documents"), RequestId::random());
    let params = json!({
        "topic": "cats",
        "Password": "s3cret",
        "form": { "ownerPassword": "s3cret", "userPassword": "s3cret", "title": "Cats" },
        "webhook": {
            "url": "https://hooks.example/s3cret", "error_url": "https://errors.example/?token=s3cret",
            "headers": { "Authorization": "Bearer s3cret" },
        },
    });
    envelope.params = serde_json::from_value(params).unwrap();
    Submission { envelope, payload: Payload::json(json!({})) }
}

#[tokio::test]
async fn no_secret_of_an_event_is_shown() {
    let service = Service::start("").await;
    let mut socket = connect(&service, "/v1/tail/documents", &[]).await.unwrap();
    let submission = secretive();
    let Submission { envelope, payload } = submission.clone();
    service.transport.submit(submission).await.unwrap();
    let tailed = next_text(&mut socket).await;
    let cause = Rejection::unusable("x", "y");
    let letter = DeadLetter { envelope, payload, stage: "x".into(), faults: 1, cause, error: None };
    service.transport.dead_letter(letter).await.unwrap();
    let kept: Value = service.get("/v1/dead-letters/1").send().await.unwrap().json().await.unwrap();
    let expected = json!({
        "topic": "cats",
        "Password": "***",
        "form": { "ownerPassword": "***", "userPassword": "***", "title": "Cats" },
        "webhook": { "url": "hooks.example", "error_url": "errors.example" },
    });
    for shown in [tailed, kept] {
        assert_eq!(shown["params"], expected);
        assert!(!shown.to_string().contains("s3cret"), "{shown}");
    }
}

#[tokio::test]
async fn a_shutdown_ends_tails_at_once() {
    let service = Service::start("").await;
    let stream = service.get("/v1/tail/documents").send().await.unwrap();
    let mut socket = connect(&service, "/v1/tail/documents", &[]).await.unwrap();
    service.begin_stop();
    soon(stream.text()).await.unwrap();
    let Message::Close(Some(frame)) = soon(socket.next()).await.unwrap().unwrap() else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Away);
    drop(socket);
    service.stop().await;
}

#[tokio::test]
async fn a_page_of_another_origin_opens_no_socket() {
    let service = Service::start("[service]\norigins = [\"https://app.example\"]\n").await;
    let path = "/v1/tail/documents";
    for origin in ["https://evil.example", "null", "https://app.example.evil", "", "http://127.0.0.1:1"] {
        assert_eq!(status_of(&service, path, &[("origin", origin), ("cookie", "session=1")]).await, 403, "{origin}");
    }
    let ours = service.url("");
    for origin in ["https://app.example", ours.as_str()] {
        connect(&service, path, &[("origin", origin)]).await.unwrap();
    }
}

#[tokio::test]
async fn a_giant_message_closes_its_socket() {
    let service = Service::start("").await;
    let mut socket = connect(&service, "/v1/tail/documents", &[]).await.unwrap();
    let _ = socket.send(Message::Binary(vec![0; 64 << 10].into())).await;
    let ended = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(Some(frame)) = message {
                assert_eq!(frame.code, CloseCode::Size);
            }
        }
    };
    soon(ended).await;
}

#[tokio::test]
async fn a_tenant_sees_its_own_events_and_must_authenticate() {
    let service = Service::start(&issuers()).await;
    problem(service.get("/v1/tail/documents").send().await.unwrap(), 401, "unauthenticated").await;
    let bearer = format!("Bearer {}", good("acme"));
    let mut socket = connect(&service, "/v1/tail/documents", &[("authorization", &bearer)]).await.unwrap();
    for (tenant, n) in [("other", 1), ("acme", 2)] {
        let request = service.post("/v1/flows/documents").bearer_auth(good(tenant)).header("prefer", "respond-async");
        assert_eq!(request.json(&json!({"n": n})).send().await.unwrap().status(), 202);
    }
    let seen = next_text(&mut socket).await;
    assert_eq!((&seen["data"]["n"], &seen["params"]["_tenant"]), (&json!(2), &json!("acme")));
    // As browsers do: with a ticket, which is valid once.
    let issued = service.post("/v1/tail/documents/ticket").bearer_auth(good("acme")).send().await.unwrap();
    let url = issued.json::<Value>().await.unwrap()["url"].as_str().unwrap().to_owned();
    connect(&service, &url, &[]).await.unwrap();
    assert_eq!(status_of(&service, &url, &[]).await, 401);
}

#[tokio::test]
async fn tails_are_counted_among_the_streams() {
    let service = Service::start("[limits]\nstreams_per_address = 1\n").await;
    let socket = connect(&service, "/v1/tail/documents", &[]).await.unwrap();
    problem(service.get("/v1/tail/documents").send().await.unwrap(), 429, "too_many_streams").await;
    drop(socket);
    let freed = async {
        while service.get("/v1/tail/documents").send().await.unwrap().status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    soon(freed).await;
    problem(service.get("/v1/tail/nothing").send().await.unwrap(), 404, "no_flow").await;
    problem(service.get("/v1/tail/a.b").send().await.unwrap(), 400, "bad_parameter").await;
}
