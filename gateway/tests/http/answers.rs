//! Answers of flow routes: the result, 202, event streams; failures and full queues.

use pipeline::{Content, OutcomeKind, Rejection, RequestId, Transport};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::service::{Service, finish, problem, read_until, soon, token};

const ROUTES: &str = r#"
    [[route]]
    path = "/ask/{topic}"
    flow = "describe"
    body = { json = true }
    query = { limit = { default = 10, min = 1, max = 100 }, format = { default = "pdf", one_of = ["pdf", "odt"] } }
    status = 201
    [[route]]
    path = "/quick"
    flow = "describe"
    body = { json = true }
    wait_ms = 40
    [[route]]
    path = "/leave"
    flow = "describe"
    body = { json = true }
    cancel_on_disconnect = true
    [[route]]
    path = "/narrow"
    flow = "narrow"
"#;

fn request_id(response: &reqwest::Response) -> RequestId {
    token(response.headers()["caudal-request"].to_str().unwrap())
}

#[tokio::test]
async fn a_client_waits_for_its_result() {
    let service = Service::start(ROUTES).await;
    service.echo("describe").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for path in ["/ask/cats?limit=7", "/ask/cats/?limit=7&unknown=1"] {
        let response = service.post(path).json(&json!({"a": 1})).header("traceparent", trace).send().await.unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(request_id(&response).as_str().len(), 32);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(response.headers()["traceparent"], trace);
        let timing = response.headers()["server-timing"].to_str().unwrap().to_owned();
        assert!(["intake;dur=", "flow;dur=", "total;dur="].iter().all(|part| timing.contains(part)), "{timing}");
        let seen: Value = response.json().await.unwrap();
        assert_eq!(seen["params"], json!({"topic": "cats", "limit": 7, "format": "pdf"}));
        assert_eq!((&seen["source"], &seen["trace"]), (&json!("/ask/{topic}"), &json!(trace)));
        assert_eq!((&seen["kind"], &seen["json"]), (&json!("json"), &json!({"a": 1})));
    }
}

#[tokio::test]
async fn a_request_without_a_trace_gets_one() {
    let service = Service::start(ROUTES).await;
    service.echo("describe").await;
    let response = service.post("/ask/x").json(&json!({})).send().await.unwrap();
    let trace = response.headers()["traceparent"].to_str().unwrap().to_owned();
    assert_eq!(trace.split('-').map(str::len).collect::<Vec<_>>(), [2, 32, 16, 2]);
    assert_eq!(response.json::<Value>().await.unwrap()["trace"], json!(trace));
}

#[tokio::test]
async fn bad_parameters_are_refused_by_name_and_value() {
    let service = Service::start(ROUTES).await;
    for segment in ["a.b", "..%2f..", "*", "%3E", "a%2Fb", "a%0ab", "%00", "%FF", "ä", &"x".repeat(65)] {
        let response = service.post(&format!("/ask/{segment}")).json(&json!({})).send().await.unwrap();
        problem(response, 400, "bad_parameter").await;
    }
    for (query, expected) in [("limit=abc", "from 1 to 100"), ("limit=0", "\"0\""), ("format=exe", "one of pdf, odt")] {
        let response = service.post(&format!("/ask/x?{query}")).json(&json!({})).send().await.unwrap();
        assert!(response.headers().contains_key("caudal-request"));
        let body = problem(response, 400, "bad_parameter").await;
        assert!(body["detail"].as_str().unwrap().contains(expected), "{body}");
        assert_eq!(body["request"].as_str().unwrap().len(), 32);
    }
    assert_eq!(service.transport.backlog(&token("describe")).await.unwrap().interactive, 0);
}

#[tokio::test]
async fn a_client_that_prefers_it_is_answered_202() {
    let service = Service::start(ROUTES).await;
    let mut source = service.source("describe").await;
    let response = service.post("/ask/x").json(&json!({})).header("prefer", "respond-async").send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["preference-applied"], "respond-async");
    let id = request_id(&response);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(location, format!("/v1/requests/{id}"));
    let body: Value = response.json().await.unwrap();
    // The backlog may be a moment old.
    let (position, wait) = if body["position"] == 0 { (json!(0), json!(0)) } else { (json!(1), Value::Null) };
    assert_eq!(body, json!({"id": id, "status": "queued", "position": position, "expected_wait_ms": wait}));

    let standing: Value = service.get(&location).send().await.unwrap().json().await.unwrap();
    assert_eq!((&standing["status"], &standing["flow"]), (&json!("queued"), &json!("describe")));
    assert!(standing["created"].as_str().unwrap().contains('T') && standing.get("result").is_none());

    let delivery = soon(source.next()).await.unwrap();
    assert_eq!(delivery.envelope.request, Some(id.clone()));
    service.publish(&id, OutcomeKind::Progress, 1, Content::json(&json!({"done": 0.5}))).await;
    let standing: Value = service.get(&location).send().await.unwrap().json().await.unwrap();
    assert_eq!(standing["status"], "running");
    service.publish(&id, OutcomeKind::Done, 2, Content::json(&json!({"answer": 42}))).await;
    let standing: Value = service.get(&location).send().await.unwrap().json().await.unwrap();
    assert_eq!((&standing["status"], &standing["result"]), (&json!("done"), &json!({"answer": 42})));
}

#[tokio::test]
async fn waiting_too_long_is_answered_202() {
    let service = Service::start(ROUTES).await;
    let response = service.post("/quick").json(&json!({})).send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert!(!response.headers().contains_key("preference-applied"));
    // A preference shortens the wait and does not lengthen it.
    let asked = service.post("/ask/x").json(&json!({})).header("prefer", "wait=0").send().await.unwrap();
    assert_eq!(asked.status(), 202);
    let asked = service.post("/quick").json(&json!({})).header("prefer", "wait=3600").send().await.unwrap();
    assert_eq!(asked.status(), 202);
}

#[tokio::test]
async fn results_stream_as_events_until_the_terminal() {
    let service = Service::start(&format!("[limits]\nheartbeat_ms = 5\n{ROUTES}")).await;
    let mut source = service.source("describe").await;
    let body = "{}";
    let mut stream = service
        .raw(format!(
            "POST /ask/x HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ))
        .await;
    let delivery = soon(source.next()).await.unwrap();
    let id = delivery.envelope.request.clone().unwrap();
    let head = read_until(&mut stream, ": hb\n").await;
    assert!(
        head.contains("text/event-stream; charset=utf-8") && head.contains(&format!("caudal-request: {id}")),
        "{head}"
    );
    service.publish(&id, OutcomeKind::Data, 1, Content::json(&json!({"t": "a\r\ndata: x\n\n"}))).await;
    finish_with(&service, delivery, 2).await;
    let mut rest = String::new();
    soon(stream.read_to_string(&mut rest)).await.unwrap();
    let events = events_of(&(head + &rest));
    let kinds: Vec<&str> = events.iter().map(|(_, kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["accepted", "data", "done"]);
    assert_eq!(events.iter().map(|(ordinal, ..)| *ordinal).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(events[0].2["id"], json!(id));
    assert_eq!(events[1].2, json!({"t": "a\r\ndata: x\n\n"}));
}

async fn finish_with(service: &Service, delivery: pipeline::Delivery, ordinal: u32) {
    let id = delivery.envelope.request.clone().unwrap();
    service.publish(&id, OutcomeKind::Done, ordinal, Content::json(&json!({"ok": true}))).await;
    delivery.ack.settle(pipeline::Settlement::Done).await;
}

/// Parses a chunked HTTP answer with events, and checks that blank lines only end events.
fn events_of(answer: &str) -> Vec<(u32, String, Value)> {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut text = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&after[..size]);
        rest = &after[size + 2..];
        if size == 0 {
            break;
        }
    }
    let mut events = Vec::new();
    for block in text.split_terminator("\n\n") {
        let lines: Vec<&str> = block.lines().filter(|line| *line != ": hb").collect();
        let [id, event, data] = lines.as_slice() else { panic!("no event: {block:?} in {text:?}") };
        let id = id.strip_prefix("id: ").unwrap().parse().unwrap();
        let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        events.push((id, event.strip_prefix("event: ").unwrap().to_owned(), data));
    }
    events
}

#[tokio::test]
async fn failures_and_cancellations_are_problems() {
    let service = Service::start(ROUTES).await;
    let mut source = service.source("describe").await;
    let asking = tokio::spawn(service.post("/ask/x").json(&json!({})).send());
    let delivery = soon(source.next()).await.unwrap();
    let id = delivery.envelope.request.clone().unwrap();
    let rejection = Rejection::too_large("too_many_pixels", "the image has 60 megapixels: at most 50 are taken");
    let content = Content::json(&serde_json::to_value(rejection).unwrap());
    service.publish(&id, OutcomeKind::Failed, 1, content).await;
    let body = problem(soon(asking).await.unwrap().unwrap(), 413, "too_many_pixels").await;
    assert_eq!(body["request"], json!(id));
    let standing: Value = service.get(&format!("/v1/requests/{id}")).send().await.unwrap().json().await.unwrap();
    assert_eq!((&standing["status"], &standing["error"]["code"]), (&json!("failed"), &json!("too_many_pixels")));

    let asking = tokio::spawn(service.post("/ask/x").json(&json!({})).send());
    let second = soon(source.next()).await.unwrap();
    let id = second.envelope.request.clone().unwrap();
    let cancelled = service.client.delete(service.url(&format!("/v1/requests/{id}"))).send().await;
    // The acceptance may not be recorded yet; until then a cancellation is answered 404.
    if cancelled.unwrap().status() == 404 {
        service.publish(&id, OutcomeKind::Cancelled, 1, Content::json(&json!({}))).await;
    }
    problem(soon(asking).await.unwrap().unwrap(), 409, "cancelled").await;
}

#[tokio::test]
async fn a_file_comes_with_its_type_also_from_the_store() {
    let service = Service::start(ROUTES).await;
    let mut source = service.source("describe").await;
    let file: Vec<u8> = (0..700_000_u32).map(|i| (i % 251) as u8).collect();
    let asking = tokio::spawn(service.post("/ask/x").json(&json!({})).send());
    let delivery = soon(source.next()).await.unwrap();
    let id = delivery.envelope.request.clone().unwrap();
    let content = pipeline::claims::store_bytes(
        &service.transport,
        pipeline::BodyOwner::Result,
        "application/pdf",
        file.clone().into(),
    )
    .await
    .unwrap();
    assert!(content.claim().is_some());
    finish(&service.transport, delivery, content).await;
    let response = soon(asking).await.unwrap().unwrap();
    assert_eq!(response.headers()["content-type"], "application/pdf");
    assert_eq!(response.headers()["content-length"], "700000");
    assert_eq!(response.bytes().await.unwrap(), file);

    let standing: Value = service.get(&format!("/v1/requests/{id}")).send().await.unwrap().json().await.unwrap();
    let link = format!("/v1/requests/{id}/result");
    assert_eq!((&standing["result"], &standing["result_type"]), (&json!(link), &json!("application/pdf")));
    assert_eq!(service.get(&link).send().await.unwrap().bytes().await.unwrap(), file);
}

#[tokio::test]
async fn a_client_that_leaves_leaves_one_whole_request() {
    let service = Service::start(ROUTES).await;
    let mut source = service.source("describe").await;
    let ask = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        )
    };
    let stream = service.raw(ask("/ask/x")).await;
    let delivery = soon(source.next()).await.unwrap();
    drop(stream);
    let id = delivery.envelope.request.clone().unwrap();
    finish(&service.transport, delivery, Content::json(&json!({"kept": true}))).await;
    assert_eq!(service.terminal(&id).await.kind, OutcomeKind::Done);

    let stream = service.raw(ask("/leave")).await;
    let delivery = soon(source.next()).await.unwrap();
    drop(stream);
    let id = delivery.envelope.request.clone().unwrap();
    assert_eq!(service.terminal(&id).await.kind, OutcomeKind::Cancelled);
    delivery.ack.settle(pipeline::Settlement::Done).await;

    // Answered requests are not cancelled after the fact.
    service.echo("describe").await;
    drop(source);
    let response = service.post("/leave").json(&json!({})).send().await.unwrap();
    let id = request_id(&response);
    drop(response);
    let transport = service.stop().await;
    assert_eq!(transport.backlog(&token("describe")).await.unwrap().interactive, 0);
    let outcomes = transport.outcomes(&id).await.unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.kind != OutcomeKind::Cancelled));
}

#[tokio::test]
async fn a_full_queue_refuses_with_retry_after() {
    let service = Service::start(ROUTES).await;
    let first = service.post("/narrow").header("prefer", "respond-async").send().await.unwrap();
    assert_eq!(first.status(), 202);
    let refused = service.post("/narrow").send().await.unwrap();
    let pause: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&pause), "{pause}");
    problem(refused, 503, "queue_full").await;
}

#[tokio::test]
async fn an_unreachable_broker_is_a_503_without_internals() {
    let service = Service::start(ROUTES).await;
    service.transport.set_down(true);
    let refused = service.post("/ask/x").json(&json!({})).send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    let body = problem(refused, 503, "broker_unavailable").await;
    assert!(!body.to_string().contains("the broker is down"), "{body}");
}

#[tokio::test]
async fn open_flows_take_bytes_and_json_in_either_lane() {
    let service = Service::start("").await;
    service.echo("documents").await;
    service.echo("describe").await;
    let seen: Value = service.post("/v1/flows/documents").json(&json!([1])).send().await.unwrap().json().await.unwrap();
    assert_eq!((&seen["kind"], &seen["json"]), (&json!("json"), &json!([1])));
    let seen: Value = service.post("/v1/flows/describe").json(&json!([1])).send().await.unwrap().json().await.unwrap();
    assert_eq!((&seen["kind"], &seen["parts"][0]["type"]), (&json!("bytes"), &json!("application/json")));
    let bulk = service.post("/v1/flows/describe?lane=bulk").header("prefer", "respond-async").body("x");
    assert_eq!(bulk.send().await.unwrap().status(), 202);
    assert_eq!(service.transport.backlog(&token("describe")).await.unwrap().bulk, 1);
    problem(service.post("/v1/flows/describe?lane=fast").body("x").send().await.unwrap(), 400, "bad_parameter").await;
    problem(service.post("/v1/flows/report").body("x").send().await.unwrap(), 404, "flow_not_open").await;
    problem(service.post("/v1/flows/nothing").body("x").send().await.unwrap(), 404, "no_flow").await;
}
