//! The answers have the schemas that `/openapi.json` says, and the document is one that generators of clients can use.

use std::collections::HashSet;

use pipeline::{Content, DeadLetter, Envelope, Payload, Rejection, RequestId, Transport};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::service::{Service, finish, soon, token};

const CONFIG: &str = r#"
    [[route]]
    path = "/ask/{topic}"
    flow = "describe"
    status = 201
    [[route]]
    path = "/reports"
    flow = "report"
    body = { form = { json = "report", files = "photo" } }
    record = { store = "reports", id = "report_id" }
    status = 201
    [[route]]
    path = "/reports/{report_id}"
    method = "GET"
    record = { store = "reports", id = "report_id" }
"#;

/// The value that a reference within the document means.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("{path} is missing")),
        None => value,
    }
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}

/// Checks a value against the part of JSON Schema that the document uses.
#[track_caller]
fn conform(document: &Value, schema: &Value, value: &Value) {
    let schema = resolve(document, schema);
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) => many.iter().map(|one| one.as_str().unwrap()).collect(),
        _ => Vec::new(),
    };
    assert!(types.is_empty() || types.iter().any(|name| is_type(value, name)), "{value} is none of {types:?}");
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{value} is none of {allowed:?}");
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{value} lacks {name}");
    }
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, property) in properties.filter_map(|(name, property)| Some((value.get(name)?, property))) {
        conform(document, property, name);
    }
    for item in value.as_array().into_iter().flatten().filter(|_| schema.get("items").is_some()) {
        conform(document, &schema["items"], item);
    }
}

struct Documented {
    service: Service,
    document: Value,
}

impl Documented {
    async fn start() -> Self {
        let service = Service::start(CONFIG).await;
        let document = service.get("/openapi.json").send().await.unwrap().json().await.unwrap();
        Self { service, document }
    }

    /// Sends a request of an operation, and checks the answer against its schema.
    async fn check(&self, method: &str, template: &str, request: RequestBuilder, status: u16) -> Value {
        let response = soon(request.send()).await.unwrap();
        assert_eq!(response.status(), status, "{method} {template}");
        let answer = &self.document["paths"][template][method]["responses"][status.to_string()];
        assert_eq!(answer["headers"].get("Location").is_some(), response.headers().contains_key("location"));
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(content_type, "application/json", "{method} {template}");
        let schema = &answer["content"][content_type]["schema"];
        assert!(schema.is_object(), "{method} {template} {status} has no schema");
        let body: Value = response.json().await.unwrap();
        conform(&self.document, schema, &body);
        body
    }

    async fn dead_letter(&self) -> String {
        let letter = DeadLetter {
            envelope: Envelope::new(token("documents"), RequestId::random()),
            payload: Payload::json(json!({"a": 1})),
            stage: "x".into(),
            faults: 1,
            cause: Rejection::unusable("x", "y"),
            error: None,
        };
        self.service.transport.dead_letter(letter).await.unwrap();
        self.service.transport.dead_letters(None, 0, 100).await.unwrap().last().unwrap().id.to_string()
    }
}

#[tokio::test]
async fn answers_have_the_schema_that_the_document_says() {
    let all = Documented::start().await;
    let service = &all.service;
    for path in ["/health", "/ready", "/openapi.json", "/v1/flows"] {
        let body = all.check("get", path, service.get(path), 200).await;
        assert!(!body.as_object().unwrap().is_empty());
    }
    let request = || service.post("/v1/flows/documents").header("prefer", "respond-async").json(&json!({}));
    let accepted = all.check("post", "/v1/flows/documents", request(), 202).await;
    let of = |rest: &str| format!("/v1/requests/{}{rest}", accepted["id"].as_str().unwrap());
    all.check("get", "/v1/requests/{id}", service.get(&of("")), 200).await;
    all.check("post", "/v1/requests/{id}/ticket", service.post(&of("/ticket")), 201).await;
    all.check("delete", "/v1/requests/{id}", service.client.delete(service.url(&of(""))), 200).await;
    all.check("post", "/v1/tail/{flow}/ticket", service.post("/v1/tail/documents/ticket"), 201).await;
    let report = service.post("/reports").json(&json!({"id": "r1", "name": "Rex"}));
    let stored = all.check("post", "/reports", report, 201).await;
    let read = all.check("get", "/reports/{report_id}", service.get("/reports/r1"), 200).await;
    assert_eq!((&stored, &read["report"]["name"]), (&read, &json!("Rex")));
    let letter = all.dead_letter().await;
    all.check("get", "/v1/dead-letters", service.get("/v1/dead-letters"), 200).await;
    let path = format!("/v1/dead-letters/{letter}");
    all.check("get", "/v1/dead-letters/{id}", service.get(&path), 200).await;
    all.check("post", "/v1/dead-letters/{id}/retry", service.post(&format!("{path}/retry")), 202).await;
    let mut source = service.source("describe").await;
    let asking = tokio::spawn(service.post("/ask/x").send());
    let delivery = soon(source.next()).await.unwrap();
    finish(&service.transport, delivery, Content::json(&json!({"late": true}))).await;
    assert_eq!(soon(asking).await.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn each_operation_has_a_name_a_summary_and_schemas_that_exist() {
    let all = Documented::start().await;
    let mut names = HashSet::new();
    for (path, item) in all.document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name) && !operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
            for (status, answer) in operation["responses"].as_object().unwrap() {
                for header in answer["headers"].as_object().into_iter().flatten() {
                    resolve(&all.document, header.1);
                }
                for content in answer["content"].as_object().into_iter().flatten() {
                    assert!(content.1["schema"].is_object(), "{method} {path} {status}");
                    resolve(&all.document, &content.1["schema"]);
                }
            }
        }
    }
    assert!(names.contains("post_ask_by_topic") && names.contains("get_reports_by_report_id"), "{names:?}");
    let answers = &all.document["paths"]["/ask/{topic}"]["post"]["responses"];
    let types = |status: &str| answers[status]["content"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(types("201"), ["application/json", "*/*"]);
    assert_eq!(types("200"), ["text/event-stream"], "a stream has 200, whatever the route's status is");
    let params = all.document["paths"]["/v1/requests/{id}/events"]["get"]["parameters"].as_array().unwrap();
    let names: Vec<&str> = params.iter().map(|param| param["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["id", "Last-Event-ID", "lastEventId"]);
}
