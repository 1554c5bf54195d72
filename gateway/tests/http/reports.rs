//! Reports with photos: stored at once, processed later.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pipeline::{Payload, Transport};
use serde_json::{Value, json};

use crate::service::{Service, add, form, problem, soon, token};

const ROUTES: &str = r#"
    [[route]]
    path = "/reports"
    flow = "report"
    body = { form = { json = "report", files = "photo" }, max_bytes = "4 MiB", max_parts = 4, types = ["image/*"] }
    record = { store = "reports", id = "report_id" }
    status = 201
    [[route]]
    path = "/reports/{report_id}"
    method = "GET"
    record = { store = "reports", id = "report_id" }
    [[route]]
    path = "/narrow"
    flow = "narrow"
    body = { form = { json = "report", files = "photo" } }
    record = { store = "reports", id = "report_id" }
"#;

fn report(fields: &Value) -> reqwest::multipart::Form {
    form("report", "application/json", fields.to_string().into_bytes())
}

#[tokio::test]
async fn a_form_is_stored_at_once_and_its_photos_stay_together() {
    let service = Service::start(ROUTES).await;
    let mut source = service.source("report").await;
    let photo = vec![7; 200_000];
    let body = add(report(&json!({"name": "Luna"})), "photo", "image/jpeg", photo.clone());
    let body = add(body, "photo", "image/png", photo.clone());
    let response = service.post("/reports").multipart(body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let request = response.headers()["caudal-request"].to_str().unwrap().to_owned();
    let answer: Value = response.json().await.unwrap();
    let id = answer["report"]["id"].as_str().unwrap().to_owned();
    assert_eq!(answer, json!({"report": {"name": "Luna", "id": id}, "request": request}));
    let kept: Value = service.get(&format!("/reports/{id}/")).send().await.unwrap().json().await.unwrap();
    assert_eq!(kept, answer);

    let delivery = soon(source.next()).await.unwrap();
    assert_eq!(delivery.envelope.text_param("report_id"), Some(id.as_str()));
    assert_eq!(delivery.envelope.id.as_str(), request);
    let Payload::Parts(parts) = &delivery.payload else { panic!("{:?}", delivery.payload) };
    let names: Vec<&str> = parts.iter().map(|part| &*part.name).collect();
    assert_eq!(names, ["photo", "photo"]);
    // Both would fit alone, but not together into one event.
    assert_eq!(parts.iter().map(|part| part.content.claim().is_some()).collect::<Vec<_>>(), [false, true]);
    assert_eq!(pipeline::claims::fetch(&service.transport, &parts[1].content).await.unwrap(), photo);
    let standing: Value = service.get(&format!("/v1/requests/{request}")).send().await.unwrap().json().await.unwrap();
    assert_eq!(standing["status"], "queued");
}

#[tokio::test]
async fn json_with_data_uris_is_the_same_report() {
    let service = Service::start(ROUTES).await;
    let mut source = service.source("report").await;
    let photo: Vec<u8> = (0..900_000_u32).map(|i| (i % 249) as u8).collect();
    let uri = format!("data:image/jpeg;base64,{}", STANDARD.encode(&photo));
    let body = json!({"id": "r-1", "name": "Luna", "seen": {"at": [1, 2]}, "photos": [uri]});
    let response = service.post("/reports").json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["report"], json!({"id": "r-1", "name": "Luna", "seen": {"at": [1, 2]}}));
    let delivery = soon(source.next()).await.unwrap();
    let Payload::Parts(parts) = &delivery.payload else { panic!("{:?}", delivery.payload) };
    assert_eq!(&*parts[0].content.media_type, "image/jpeg");
    assert_eq!(pipeline::claims::fetch(&service.transport, &parts[0].content).await.unwrap(), photo);
    // Without photos it is a report all the same.
    let bare = service.post("/reports").json(&json!({"id": 42})).send().await.unwrap();
    let answer: Value = bare.json().await.unwrap();
    assert_eq!(answer["report"]["id"], "42");
}

#[tokio::test]
async fn a_malformed_report_is_refused_and_leaves_nothing() {
    let service = Service::start(ROUTES).await;
    let photo = || vec![1; 400_000];
    let send = |body| service.post("/reports").multipart(body).send();
    let body = problem(send(form("photo", "image/png", photo())).await.unwrap(), 400, "missing_part").await;
    assert!(body["detail"].as_str().unwrap().contains("\"report\""));
    let list = add(form("photo", "image/png", photo()), "report", "application/json", b"[]".to_vec());
    problem(send(list).await.unwrap(), 400, "malformed_json").await;
    let wrong_id = add(report(&json!({"id": "../x"})), "photo", "image/png", photo());
    let body = problem(send(wrong_id).await.unwrap(), 400, "bad_parameter").await;
    assert!(body["detail"].as_str().unwrap().contains("report.id"), "{body}");
    problem(send(add(report(&json!({})), "photo", "text/html", photo())).await.unwrap(), 415, "media_type").await;

    let post = |body: Value| service.post("/reports").json(&body).send();
    problem(post(json!({"photos": ["http://x/y.jpg"]})).await.unwrap(), 400, "bad_data_uri").await;
    problem(post(json!({"photos": ["data:image/png;base64,@@@@"]})).await.unwrap(), 400, "bad_data_uri").await;
    problem(post(json!({"photos": ["data:image/png;base64,"]})).await.unwrap(), 422, "empty_file").await;
    problem(post(json!({"photos": ["data:text/html;base64,aGk="]})).await.unwrap(), 415, "media_type").await;
    problem(post(json!({"photos": ["", "", "", "", ""]})).await.unwrap(), 400, "malformed_json").await;
    problem(post(json!({"text": "x".repeat(300_000)})).await.unwrap(), 413, "too_large").await;
    problem(service.post("/reports").body("x").send().await.unwrap(), 415, "media_type").await;
    let transport = service.stop().await;
    assert_eq!(transport.claim_count(), 0);
    assert_eq!(transport.backlog(&token("report")).await.unwrap().interactive, 0);
}

#[tokio::test]
async fn a_report_that_is_refused_takes_its_record_back() {
    let service = Service::start(ROUTES).await;
    let first = service.post("/narrow").json(&json!({"id": "a", "n": 1})).send().await.unwrap();
    assert_eq!(first.status(), 200);
    problem(service.post("/narrow").json(&json!({"id": "b"})).send().await.unwrap(), 503, "queue_full").await;
    problem(service.get("/reports/b").send().await.unwrap(), 404, "no_record").await;
    problem(service.post("/narrow").json(&json!({"id": "a", "n": 2})).send().await.unwrap(), 503, "queue_full").await;
    let kept: Value = service.get("/reports/a").send().await.unwrap().json().await.unwrap();
    assert_eq!(kept["report"]["n"], 1);
    problem(service.get("/reports/a.b").send().await.unwrap(), 400, "bad_parameter").await;
}
