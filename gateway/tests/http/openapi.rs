//! `/openapi.json` is exact: a walk provokes every listed status, and meets no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway::ReadinessCheck;
use pipeline::testing::MemoryTransport;
use pipeline::{Content, DeadLetter, Envelope, OutcomeKind, Payload, Rejection, RequestId, Transport};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::service::{FLOWS, Service, form, read_to_end, soon, token};
use crate::tokens::{claims, good, issuers, sign};

const CONFIG: &str = r#"
    [limits]
    upload_grace_ms = 200
    streams_per_address = 1
    [limits.class.rare]
    rate = "40/hour"
    [[route]]
    path = "/ask/{topic}"
    flow = "describe"
    body = { json = true, max_bytes = "1 KiB" }
    query = { limit = { default = 10, min = 1, max = 100 } }
    status = 201
    class = "rare"
    [[route]]
    path = "/reports"
    flow = "report"
    body = { form = { json = "report", files = "photo" }, max_bytes = "1 KiB" }
    record = { store = "reports", id = "report_id" }
    status = 201
    [[route]]
    path = "/reports/{report_id}"
    method = "GET"
    record = { store = "reports", id = "report_id" }
"#;

/// Gives a request a body that its route takes.
type Good = fn(RequestBuilder) -> RequestBuilder;

type Statuses = BTreeMap<(String, String), BTreeSet<u16>>;

/// The listed statuses; `default` is 0.
fn listed(document: &Value) -> Statuses {
    let mut listed = Statuses::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let statuses = operation["responses"].as_object().unwrap().keys();
            let statuses = statuses.map(|status| if status == "default" { 0 } else { status.parse().unwrap() });
            listed.insert((method.clone(), path.clone()), statuses.collect());
        }
    }
    listed
}

/// A service, and every status that it has answered.
struct Walk {
    service: Service,
    document: Value,
    listed: Statuses,
    seen: Statuses,
    token: Option<String>,
}

impl Walk {
    async fn start(config: &str, token: Option<String>) -> Self {
        let transport = MemoryTransport::with_flows(FLOWS);
        let asked = transport.clone();
        let broker: ReadinessCheck = Arc::new(move || {
            let asked = asked.clone();
            Box::pin(async move { asked.ready().await.map_err(|error| error.to_string()) })
        });
        let service = Service::start_on(transport, config, vec![("broker".to_owned(), broker)]).await;
        let mut walk = Self { service, document: Value::Null, listed: Statuses::new(), seen: Statuses::new(), token };
        let document = walk.request("get", "/openapi.json").send().await.unwrap();
        let document: Value = document.json().await.unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        walk.listed = listed(&document);
        walk.document = document;
        walk
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.to_ascii_uppercase().parse().unwrap();
        let request = self.service.client.request(method, self.service.url(path));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn note(&mut self, method: &str, template: &str, status: u16) {
        let operation = (method.to_owned(), template.to_owned());
        let listed = self.listed.get(&operation).unwrap_or_else(|| panic!("{method} {template} is not listed"));
        assert!(listed.contains(&status) || listed.contains(&0), "{method} {template} answers {status}: {listed:?}");
        let noted = if listed.contains(&status) { status } else { 0 };
        self.seen.entry(operation).or_default().insert(noted);
    }

    /// Sends a request of an operation and records the status of the answer.
    async fn send(&mut self, method: &str, template: &str, request: RequestBuilder) -> reqwest::Response {
        let response = soon(request.send()).await.unwrap();
        self.note(method, template, response.status().as_u16());
        response
    }

    /// A request of an operation with its parameter filled in.
    async fn call(&mut self, method: &str, template: &str, id: &str) -> reqwest::Response {
        let request = self.request(method, &fill(template, id));
        self.send(method, template, request).await
    }

    /// The answers that every operation has: to long URIs and headers, other sites, bad ids, a broker that is down,
    /// missing credentials.
    async fn everywhere(&mut self) {
        let all: Vec<(String, String)> = self.listed.keys().cloned().collect();
        for (method, template) in &all {
            let long = format!("{}?{}", fill(template, "x"), "y".repeat(9_000));
            self.send(method, template, self.request(method, &long)).await;
            let heavy = self.request(method, &fill(template, "x")).header("x-heavy", "y".repeat(64 << 10));
            self.send(method, template, heavy).await;
            self.foreign(method, template).await;
            if template.contains('{') {
                self.call(method, template, "a.b").await;
                self.call(method, template, "nothing").await;
                self.call(method, template, "999999").await;
            }
            if self.token.is_some() {
                let path = fill(template, "x");
                let request =
                    self.service.client.request(method.to_ascii_uppercase().parse().unwrap(), self.service.url(&path));
                self.send(method, template, request).await;
            }
        }
        self.service.transport.set_down(true);
        for (method, template) in &all {
            let id = if template.contains("{flow}") { "documents" } else { "0" };
            let request = body_for(template, self.request(method, &fill(template, id)));
            self.send(method, template, request).await;
        }
        let unready = async {
            // The last result of the checks is current for a moment.
            while self.call("get", "/ready", "").await.status() != 503 {
                tokio::task::yield_now().await;
            }
        };
        soon(unready).await;
        self.service.transport.set_down(false);
    }

    /// Pages of another site; and DNS rebinding, if the Host is checked.
    async fn foreign(&mut self, method: &str, template: &str) {
        if method != "get" {
            let page = self.request(method, &fill(template, "x")).header("origin", "http://evil.example");
            assert_eq!(self.send(method, template, page).await.status(), 403);
        }
        if self.token.is_none() {
            let rebound = self.request(method, &fill(template, "x")).header("host", "evil.example");
            assert_eq!(self.send(method, template, rebound).await.status(), 403);
        }
    }

    async fn accepted(&self) -> RequestId {
        let request = self.request("post", "/v1/flows/documents").header("prefer", "respond-async").json(&json!({}));
        token(request.send().await.unwrap().headers()["caudal-request"].to_str().unwrap())
    }

    async fn requests(&mut self) {
        const ONE: &str = "/v1/requests/{id}";
        const EVENTS: &str = "/v1/requests/{id}/events";
        const RESULT: &str = "/v1/requests/{id}/result";
        let id = self.accepted().await;
        self.call("get", ONE, id.as_str()).await;
        self.call("get", RESULT, id.as_str()).await;
        self.call("post", "/v1/requests/{id}/ticket", id.as_str()).await;
        let first = self.call("get", EVENTS, id.as_str()).await;
        self.call("get", EVENTS, id.as_str()).await;
        drop(first);
        self.call("delete", ONE, id.as_str()).await;
        self.call("delete", ONE, id.as_str()).await;
        let ended = self.request("get", &fill(EVENTS, id.as_str())).header("last-event-id", "9");
        let ended = async {
            // The server may not have noticed yet that the first stream is closed.
            while ended.try_clone().unwrap().send().await.unwrap().status() == 429 {
                tokio::task::yield_now().await;
            }
        };
        soon(ended).await;
        let again = self.request("get", &fill(EVENTS, id.as_str())).header("last-event-id", "9");
        self.send("get", EVENTS, again).await;
        for (kind, content) in [
            (OutcomeKind::Done, json!({})),
            (OutcomeKind::Failed, serde_json::to_value(Rejection::unusable("x", "y")).unwrap()),
        ] {
            let id = self.accepted().await;
            self.service.publish(&id, kind, 1, Content::json(&content)).await;
            self.call("get", RESULT, id.as_str()).await;
        }
    }

    async fn dead_letters(&mut self) {
        for (method, rest) in [("get", ""), ("post", "/retry"), ("delete", "")] {
            let mut envelope = Envelope::new(token("documents"), RequestId::random());
            envelope.request = Some(envelope.id.clone());
            let letter = DeadLetter {
                envelope,
                payload: Payload::json(json!({})),
                stage: "x".into(),
                faults: 1,
                cause: Rejection::unusable("x", "y"),
                error: None,
            };
            self.service.transport.dead_letter(letter).await.unwrap();
            let kept = self.service.transport.dead_letters(None, 0, 100).await.unwrap();
            let number = kept.last().unwrap().id.to_string();
            self.call(method, &format!("/v1/dead-letters/{{id}}{rest}"), &number).await;
        }
        let bad = self.request("get", "/v1/dead-letters?limit=x");
        self.send("get", "/v1/dead-letters", bad).await;
        self.call("get", "/v1/dead-letters", "").await;
    }

    async fn tail(&mut self) {
        const TAIL: &str = "/v1/tail/{flow}";
        let first = self.call("get", TAIL, "documents").await;
        self.call("get", TAIL, "documents").await;
        drop(first);
        self.call("post", "/v1/tail/{flow}/ticket", "documents").await;
        for origin in ["http://evil.example".to_owned(), self.service.url("")] {
            let upgrade = || {
                let request = self.request("get", "/v1/tail/documents").header("origin", &origin);
                let request = request.header("connection", "upgrade").header("upgrade", "websocket");
                request.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            };
            let answered = async {
                loop {
                    let response = upgrade().send().await.unwrap();
                    if response.status() != 429 {
                        break response.status().as_u16();
                    }
                    tokio::task::yield_now().await;
                }
            };
            let status = soon(answered).await;
            self.note("get", TAIL, status);
        }
    }

    /// The answers of a flow's route to wrong bodies.
    async fn wrong_bodies(&mut self, template: &str, good: Good) {
        let path = fill(template, "documents");
        let post = |walk: &Self| walk.request("post", &path);
        let request = post(self).header("content-encoding", "gzip").body("x");
        self.send("post", template, request).await;
        let key = good(post(self)).header("idempotency-key", "a b");
        self.send("post", template, key).await;
        let large = post(self).header("content-type", "application/json").body("x".repeat((16 << 20) + 1));
        self.send("post", template, large).await;
        let repeat = |walk: &Self, query: &str| {
            good(walk.request("post", &format!("{path}{query}")))
                .header("prefer", "respond-async")
                .header("idempotency-key", "k")
        };
        let first = repeat(self, "");
        self.send("post", template, first).await;
        let slow = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{}Content-Type: application/json\r\nContent-Length: 900\r\n\r\n{{",
            self.token.as_ref().map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"))
        );
        let mut stream = self.service.raw(slow).await;
        let answer = read_to_end(&mut stream).await;
        stream.shutdown().await.ok();
        self.note("post", template, answer.split(' ').nth(1).unwrap().parse().unwrap());
    }
}

fn fill(template: &str, id: &str) -> String {
    let segment = |segment: &str| if segment.starts_with('{') { id.to_owned() } else { segment.to_owned() };
    template.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// A body that the route takes.
fn body_for(template: &str, request: RequestBuilder) -> RequestBuilder {
    match template {
        "/reports" | "/ask/{topic}" => request.json(&json!({})),
        _ if template.starts_with("/v1/flows/") => request.json(&json!({})),
        _ => request,
    }
}

#[tokio::test]
async fn every_listed_status_occurs_and_every_status_is_listed() {
    let mut walk = Walk::start(CONFIG, None).await;
    walk.everything().await;
    walk.compare();
    assert!(walk.document["components"].get("securitySchemes").is_none());
    assert!(walk.listed.values().all(|statuses| !statuses.contains(&401)), "authentication is off");
}

/// The same with authentication, where 401 is listed for the operations that need a credential.
#[tokio::test]
async fn every_listed_status_occurs_with_authentication() {
    let mut admin = claims("hs", "ops");
    admin["scope"] = json!("read caudal:admin");
    let mut walk = Walk::start(&format!("{}{CONFIG}", issuers()), Some(sign("hs", &admin))).await;
    walk.everything().await;
    walk.token = Some(good("acme"));
    walk.everywhere().await;
    let guarded: Vec<(String, String)> = walk
        .listed
        .iter()
        .filter(|(_, statuses)| statuses.contains(&401))
        .map(|(operation, _)| operation.clone())
        .collect();
    for number in 0..70 {
        walk.token = Some(format!("guess-{number}"));
        walk.call("get", "/v1/flows", "").await;
    }
    for (method, template) in &guarded {
        walk.call(method, template, "x").await;
    }
    walk.compare();
    walk.check_security(&guarded);
}

impl Walk {
    /// Everything that one client can provoke.
    async fn everything(&mut self) {
        for path in ["/health", "/ready", "/metrics", "/openapi.json", "/v1/flows"] {
            self.call("get", path, "").await;
        }
        self.requests().await;
        self.dead_letters().await;
        self.tail().await;
        let answers: [(&str, Good); 4] = [
            ("/ask/{topic}", |request| request.json(&json!({"n": 1}))),
            ("/reports", |request| request.json(&json!({"n": 1}))),
            ("/v1/flows/documents", |request| request.json(&json!({"n": 1}))),
            ("/v1/flows/describe", |request| request.body("x")),
        ];
        for (template, good) in answers {
            self.wrong_bodies(template, good).await;
            let other = self.request("post", &fill(template, "documents")).header("idempotency-key", "k");
            self.send("post", template, other.json(&json!({"n": 2}))).await;
        }
        let report = self.request("post", "/reports").json(&json!({"id": "r1"}));
        self.send("post", "/reports", report).await;
        self.call("get", "/reports/{report_id}", "r1").await;
        let empty = form("photo", "image/png", Vec::new());
        let empty = self.request("post", "/reports").multipart(empty);
        self.send("post", "/reports", empty).await;
        self.ends(&["/ask/{topic}", "/v1/flows/documents", "/v1/flows/describe"]).await;
        self.everywhere().await;
        for _ in 0..60 {
            let request = self.request("post", "/ask/x").header("prefer", "respond-async").json(&json!({}));
            self.send("post", "/ask/{topic}", request).await;
        }
    }

    /// Exactly the operations that can answer 401 list the credentials they accept.
    fn check_security(&self, guarded: &[(String, String)]) {
        let schemes = self.document["components"]["securitySchemes"].as_object().unwrap();
        assert_eq!(schemes.keys().collect::<Vec<_>>(), ["bearer", "key"]);
        assert_eq!((&schemes["bearer"]["scheme"], &schemes["key"]["name"]), (&json!("bearer"), &json!("X-API-Key")));
        for (method, path) in self.listed.keys() {
            let security = self.document["paths"][path][method]["security"].as_array().unwrap();
            let named: Vec<&String> = security.iter().flat_map(|one| one.as_object().unwrap().keys()).collect();
            let is_guarded = guarded.contains(&(method.clone(), path.clone()));
            assert_eq!(named, if is_guarded { vec!["bearer", "key"] } else { Vec::new() }, "{method} {path}");
        }
    }
}

impl Walk {
    /// The ends of flow requests, for a client that waits; and streams, of which one is allowed.
    async fn ends(&mut self, templates: &[&str]) {
        for template in templates {
            let flow = if template.ends_with("documents") { "documents" } else { "describe" };
            let path = fill(template, "x");
            let mut source = self.service.source(flow).await;
            // The events of earlier requests.
            while self.service.transport.backlog(&token(flow)).await.unwrap().interactive > 0 {
                soon(source.next()).await.unwrap().ack.settle(pipeline::Settlement::Done).await;
            }
            let rejection = serde_json::to_value(Rejection::new(507, "x", "y")).unwrap();
            let kinds =
                [(OutcomeKind::Done, json!({})), (OutcomeKind::Cancelled, json!({})), (OutcomeKind::Failed, rejection)];
            for (kind, content) in kinds {
                let request = body_for(template, self.request("post", &path));
                let request =
                    if flow == "describe" && template.starts_with("/v1") { request.body("x") } else { request };
                let asking = tokio::spawn(request.send());
                let delivery = soon(source.next()).await.unwrap();
                let id = delivery.envelope.request.clone().unwrap();
                self.service.publish(&id, kind, 1, Content::json(&content)).await;
                delivery.ack.settle(pipeline::Settlement::Done).await;
                let status = soon(asking).await.unwrap().unwrap().status().as_u16();
                self.note("post", template, status);
            }
            let stream = |walk: &Self| {
                let request = body_for(template, walk.request("post", &path));
                request.header("accept", "text/event-stream")
            };
            let request = stream(self);
            let open = self.send("post", template, request).await;
            let request = stream(self);
            self.send("post", template, request).await;
            drop(open);
        }
    }

    fn compare(&self) {
        for (operation, listed) in &self.listed {
            let seen = self.seen.get(operation).cloned().unwrap_or_default();
            let missing: Vec<&u16> = listed.difference(&seen).collect();
            assert!(missing.is_empty(), "{operation:?} was not seen to answer {missing:?}, only {seen:?}");
        }
    }
}
