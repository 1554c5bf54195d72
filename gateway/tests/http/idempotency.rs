//! A repeat with the same `Idempotency-Key` attaches to the first request, at any time and on any gateway.

use futures_util::future::join_all;
use pipeline::testing::MemoryTransport;
use pipeline::{Content, OutcomeKind, Settlement, Token, Transport};
use serde_json::{Value, json};

use crate::service::{FLOWS, Service, add, finish, form, problem, soon, token};
use crate::tokens::{good, issuers};

const ROUTES: &str = r#"
    [[route]]
    path = "/ask"
    flow = "describe"
    body = { json = true }
    [[route]]
    path = "/other"
    flow = "describe"
    body = { json = true }
    [[route]]
    path = "/photo"
    flow = "describe"
    body = { multipart = "file" }
    query = { limit = { default = 10, min = 1, max = 100 } }
    [[route]]
    path = "/narrow"
    flow = "narrow"
    body = { json = true }
    [[route]]
    path = "/reports"
    flow = "report"
    body = { form = { json = "report", files = "photo" } }
    record = { store = "reports", id = "report_id" }
    status = 201
"#;

async fn waiting(service: &Service, flow: &str) -> u64 {
    service.transport.backlog(&token(flow)).await.unwrap().interactive
}

fn id_of(response: &reqwest::Response) -> String {
    response.headers()["caudal-request"].to_str().unwrap().to_owned()
}

fn replayed(response: &reqwest::Response) -> bool {
    response.headers().contains_key("idempotent-replayed")
}

/// Sends a request to `path` with a key, without waiting for the result.
async fn ask(service: &Service, path: &str, key: &str, body: &Value) -> reqwest::Response {
    let request = service.post(path).header("idempotency-key", key).header("prefer", "respond-async");
    request.json(body).send().await.unwrap()
}

#[tokio::test]
async fn a_repeat_attaches_and_another_body_is_refused() {
    let service = Service::start(ROUTES).await;
    let first = ask(&service, "/ask", "k-1", &json!({"a": 1, "b": 2})).await;
    assert!(first.status() == 202 && !replayed(&first));
    // The same content in another order, the key in quotes as a structured field.
    let request = service.post("/ask").header("idempotency-key", "\"k-1\"").header("prefer", "respond-async");
    let again = request.header("content-type", "application/json").body("{\"b\":2,  \"a\":1}").send().await.unwrap();
    assert!(again.status() == 202 && replayed(&again));
    assert_eq!(id_of(&first), id_of(&again));
    problem(ask(&service, "/ask", "k-1", &json!({"a": 2})).await, 422, "idempotency_key_reused").await;
    // Another key or another route makes another request.
    for (path, key) in [("/ask", "k-2"), ("/other", "k-1")] {
        assert_ne!(id_of(&ask(&service, path, key, &json!({"a": 1, "b": 2})).await), id_of(&first));
    }
    assert_eq!(waiting(&service, "describe").await, 3);
    for wrong in ["", " ", "ä", "a b", &"x".repeat(256)] {
        let request = service.post("/ask").header("idempotency-key", wrong.as_bytes()).json(&json!({}));
        problem(request.send().await.unwrap(), 400, "bad_idempotency_key").await;
    }
}

#[tokio::test]
async fn a_repeat_that_waits_gets_the_first_result() {
    let service = Service::start(ROUTES).await;
    let mut source = service.source("describe").await;
    let ask = || service.post("/ask").header("idempotency-key", "k").json(&json!({"n": 1})).send();
    let first = tokio::spawn(ask());
    let delivery = soon(source.next()).await.unwrap();
    let in_progress = tokio::spawn(ask());
    let streamed = service.post("/ask").header("idempotency-key", "k").header("accept", "text/event-stream");
    let streamed = streamed.json(&json!({"n": 1})).send().await.unwrap();
    finish(&service.transport, delivery, Content::json(&json!({"answer": 42}))).await;
    for asked in [first, in_progress] {
        let answer: Value = soon(asked).await.unwrap().unwrap().json().await.unwrap();
        assert_eq!(answer, json!({"answer": 42}));
    }
    assert!(soon(streamed.text()).await.unwrap().contains("\"answer\":42"));
    let late = ask().await.unwrap();
    assert!(replayed(&late));
    assert_eq!(late.json::<Value>().await.unwrap(), json!({"answer": 42}));
    assert_eq!(waiting(&service, "describe").await, 0);
}

#[tokio::test]
async fn a_hundred_at_once_make_one_request() {
    let service = Service::start(ROUTES).await;
    let body = json!({"n": 1});
    let all = join_all((0..100).map(|_| ask(&service, "/ask", "k", &body))).await;
    let mut ids: Vec<String> = all.iter().map(id_of).collect();
    assert!(all.iter().all(|response| response.status() == 202));
    assert_eq!(all.iter().filter(|response| !replayed(response)).count(), 1);
    ids.dedup();
    assert_eq!((ids.len(), waiting(&service, "describe").await), (1, 1));
}

#[tokio::test]
async fn a_form_is_the_same_with_another_boundary() {
    let service = Service::start(ROUTES).await;
    let send = |bytes: Vec<u8>, query: &str| {
        let request = service.post(&format!("/photo{query}")).header("idempotency-key", "k");
        let body = add(form("file", "image/png", bytes), "ignored", "text/plain", b"x".to_vec());
        request.header("prefer", "respond-async").multipart(body).send()
    };
    // Too long to be inline.
    let first = send(vec![1; 400_000], "").await.unwrap();
    let again = send(vec![1; 400_000], "?limit=10").await.unwrap();
    assert_eq!((id_of(&first), replayed(&again)), (id_of(&again), true));
    problem(send(vec![2; 400_000], "").await.unwrap(), 422, "idempotency_key_reused").await;
    problem(send(vec![1; 400_000], "?limit=11").await.unwrap(), 422, "idempotency_key_reused").await;
    assert_eq!(waiting(&service, "describe").await, 1);
    assert_eq!(service.stop().await.claim_count(), 1, "what the repeats sent is not kept");
}

#[tokio::test]
async fn a_repeat_of_a_report_shows_the_report() {
    let service = Service::start(ROUTES).await;
    let send = || {
        let body =
            add(form("report", "application/json", b"{\"name\": \"Luna\"}".to_vec()), "photo", "image/png", vec![1; 9]);
        service.post("/reports").header("idempotency-key", "k").multipart(body).send()
    };
    let (first, again) = (send().await.unwrap(), send().await.unwrap());
    assert_eq!((first.status().as_u16(), again.status().as_u16(), replayed(&again)), (201, 201, true));
    assert_eq!(first.json::<Value>().await.unwrap(), again.json::<Value>().await.unwrap());
    assert_eq!(waiting(&service, "report").await, 1);
}

#[tokio::test]
async fn tenants_have_their_own_keys() {
    let service = Service::start(&format!("{}{ROUTES}", issuers())).await;
    let ask = |tenant: &str, n: u32| {
        let request = service.post("/ask").header("idempotency-key", "k").bearer_auth(good(tenant));
        request.header("prefer", "respond-async").json(&json!({"n": n})).send()
    };
    let (mine, theirs) = (ask("acme", 1).await.unwrap(), ask("other", 2).await.unwrap());
    assert_eq!((mine.status().as_u16(), theirs.status().as_u16()), (202, 202));
    assert!(replayed(&ask("acme", 1).await.unwrap()));
    problem(ask("acme", 2).await.unwrap(), 422, "idempotency_key_reused").await;
    assert_eq!(waiting(&service, "describe").await, 2);
}

/// Moves the expiry of every key by some seconds.
async fn age(transport: &MemoryTransport, seconds: i64) {
    let store = token("caudal-idempotency");
    for slot in 0..32_768 {
        let key: Token = token(&format!("slot-{slot}"));
        let Some(record) = transport.get_record(&store, &key).await.unwrap() else { continue };
        let mut notes: Value = serde_json::from_slice(&record.value).unwrap();
        for note in notes.as_array_mut().unwrap() {
            note["until"] = json!(note["until"].as_i64().unwrap() - seconds);
        }
        transport.put_record(&store, &key, notes.to_string().into()).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_holds_for_a_day_over_restarts_of_gateway_and_broker() {
    let service = Service::start(ROUTES).await;
    let first = id_of(&ask(&service, "/ask", "k", &json!({"n": 1})).await);
    let transport = service.stop().await;
    // After a restart or three minutes the broker has forgotten the ids it has seen.
    transport.forget_ids();
    let service = Service::start_on(transport, ROUTES, Vec::new()).await;
    assert_eq!(id_of(&ask(&service, "/ask", "k", &json!({"n": 1})).await), first);
    problem(ask(&service, "/ask", "k", &json!({"n": 2})).await, 422, "idempotency_key_reused").await;
    age(&service.transport, 23 * 3600).await;
    assert_eq!(id_of(&ask(&service, "/ask", "k", &json!({"n": 1})).await), first);
    assert_eq!(waiting(&service, "describe").await, 1);
    age(&service.transport, 3601).await;
    let later = ask(&service, "/ask", "k", &json!({"n": 2})).await;
    assert!(later.status() == 202 && !replayed(&later) && id_of(&later) != first);
}

/// Waits until the stored keys contain this text.
async fn noted(transport: &MemoryTransport, what: &str) {
    let store = token("caudal-idempotency");
    let found = async || {
        for slot in 0..32_768 {
            let record = transport.get_record(&store, &token(&format!("slot-{slot}"))).await.unwrap();
            if record.is_some_and(|record| String::from_utf8_lossy(&record.value).contains(what)) {
                return true;
            }
        }
        false
    };
    let waiting = async {
        while !found().await {
            tokio::task::yield_now().await;
        }
    };
    soon(waiting).await;
}

#[tokio::test]
async fn a_request_whose_results_are_gone_is_not_repeated() {
    let service = Service::start(ROUTES).await;
    let first = id_of(&ask(&service, "/ask", "k", &json!({"n": 1})).await);
    noted(&service.transport, "\"kept\":true").await;
    service.transport.forget_results(&token(&first));
    service.transport.forget_ids();
    let repeat = ask(&service, "/ask", "k", &json!({"n": 1})).await;
    problem(repeat, 410, "result_gone").await;
    assert_eq!(waiting(&service, "describe").await, 1);
    assert_eq!(ask(&service, "/ask", "k-2", &json!({"n": 1})).await.status(), 202, "under a new key it is");
}

#[tokio::test]
async fn a_request_that_was_refused_is_made_by_its_repeat() {
    let service = Service::start_on(MemoryTransport::with_flows(FLOWS), ROUTES, Vec::new()).await;
    assert_eq!(ask(&service, "/narrow", "a", &json!({})).await.status(), 202);
    let refused = ask(&service, "/narrow", "b", &json!({})).await;
    let id = id_of(&refused);
    problem(refused, 503, "queue_full").await;
    let known = ask(&service, "/narrow", "a", &json!({})).await;
    assert!(known.status() == 202 && replayed(&known), "a stored request needs no room");
    let mut source = service.source("narrow").await;
    soon(source.next()).await.unwrap().ack.settle(Settlement::Done).await;
    let freed = async {
        loop {
            let again = ask(&service, "/narrow", "b", &json!({})).await;
            if again.status() == 202 {
                break again;
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(id_of(&soon(freed).await), id);
    let delivery = soon(source.next()).await.unwrap();
    assert_eq!(delivery.envelope.id.as_str(), id);
    service.publish(&token(&id), OutcomeKind::Done, 1, Content::json(&json!({}))).await;
    delivery.ack.settle(Settlement::Done).await;
    let done: Value = ask(&service, "/narrow", "b", &json!({})).await.json().await.unwrap();
    assert_eq!(done["status"], "done");
    assert_eq!(waiting(&service, "narrow").await, 0);
}
