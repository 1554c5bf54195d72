//! Forms as browsers, apps and libraries write them: what they mean, and that nothing of them is lost without a word.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::service::{Service, problem, soon};

const ROUTES: &str = r#"
    [[route]]
    path = "/photo"
    flow = "describe"
    body = { multipart = "file", max_bytes = "1 MiB", types = ["image/*"], max_parts = 4 }
    [[route]]
    path = "/labelled"
    flow = "describe"
    body = { parts = ["file", "label"], max_bytes = "1 MiB" }
    [[route]]
    path = "/convert"
    flow = "describe"
    body = { files = true, max_bytes = "1 MiB" }
    [[route]]
    path = "/reports"
    flow = "report"
    body = { form = { json = "report", files = "photo" }, max_bytes = "60 MiB", max_parts = 4, types = ["image/*"] }
    record = { store = "reports", id = "report_id" }
    status = 201
"#;

const FILE: &str = "form-data; name=\"file\"; filename=\"a.jpg\"";
const REPORT: &str = "form-data; name=\"report\"";
const FIELDS: &str = "{\"kind\": \"lost\"}";

/// A service whose flows answer with what they saw.
async fn service() -> Service {
    let service = Service::start(ROUTES).await;
    service.echo("describe").await;
    service
}

/// One part of a form; an image unless it is JSON.
fn part(disposition: &str, body: &str) -> String {
    let kind = if body.starts_with('{') { "application/json" } else { "image/jpeg" };
    format!("--B\r\nContent-Disposition: {disposition}\r\nContent-Type: {kind}\r\n\r\n{body}\r\n")
}

/// A file input of which nobody chose a file, as browsers send it.
fn left_empty(name: &str) -> String {
    part(&format!("form-data; name=\"{name}\"; filename=\"\""), "").replace("image/jpeg", "application/octet-stream")
}

async fn send_as(service: &Service, path: &str, media_type: &str, parts: &[String]) -> reqwest::Response {
    let form = format!("{}--B--\r\n", parts.concat());
    service.post(path).header("content-type", media_type).body(form).send().await.unwrap()
}

async fn send(service: &Service, path: &str, parts: &[String]) -> reqwest::Response {
    send_as(service, path, "multipart/form-data; boundary=B", parts).await
}

/// The names and lengths of the parts that the flow saw.
async fn seen(response: reqwest::Response) -> Vec<(String, u64)> {
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    let seen: Value = response.json().await.unwrap();
    let part = |part: &Value| (part["name"].as_str().unwrap().to_owned(), part["length"].as_u64().unwrap());
    seen["parts"].as_array().unwrap().iter().map(part).collect()
}

fn files(lengths: &[(&str, u64)]) -> Vec<(String, u64)> {
    lengths.iter().map(|(name, length)| ((*name).to_owned(), *length)).collect()
}

/// The lengths of a report's photos, as its flow gets them.
async fn photos(service: &Service, source: &mut dyn pipeline::Source, response: reqwest::Response) -> Vec<u64> {
    assert_eq!(response.status(), 201, "{}", response.text().await.unwrap());
    let delivery = soon(source.next()).await.unwrap();
    let pipeline::Payload::Parts(parts) = &delivery.payload else { panic!("{:?}", delivery.payload) };
    assert!(parts.iter().all(|part| &*part.name == "photo"), "{parts:?}");
    let lengths = parts.iter().map(|part| part.content.length()).collect();
    crate::service::finish(&service.transport, delivery, pipeline::Content::json(&Value::Null)).await;
    lengths
}

#[tokio::test]
async fn a_file_is_found_however_its_part_is_written() {
    let service = service().await;
    for disposition in [
        "form-data; name=file; filename=a.jpg",
        "form-data; filename=\"my pet name.jpg\"; name=\"file\"",
        "form-data; filename=\"dog; name=rex.jpg\"; name=\"file\"",
        "form-data; NAME=\"file\"; FILENAME=\"a.jpg\"",
        "Form-Data;\r\n\tname=\"file\";\r\n filename=\"a.jpg\"",
        "form-data; filename*=UTF-8''a.jpg; name=\"file\"",
        "form-data; name=\"file\"; filename=\"K\u{e4}fer \u{1f415}.jpg\"",
    ] {
        let answer = send(&service, "/photo", &[part(disposition, "pixels")]).await;
        assert_eq!(seen(answer).await, files(&[("", 6)]), "{disposition}");
    }
    for media_type in [
        "multipart/form-data ;  boundary=B",
        "Multipart/Form-Data; Boundary=\"B\"",
        "multipart/form-data;boundary=B;charset=UTF-8;",
    ] {
        let answer = send_as(&service, "/photo", media_type, &[part(FILE, "pixels")]).await;
        assert_eq!(seen(answer).await, files(&[("", 6)]), "{media_type}");
    }
}

#[tokio::test]
async fn a_file_input_that_was_left_empty_is_no_file() {
    let service = service().await;
    let label = || part("form-data; name=\"label\"; filename=\"l\"", "cat");
    for parts in [vec![left_empty("file"), part(FILE, "pixels")], vec![part(FILE, "pixels"), left_empty("file")]] {
        let answer = send(&service, "/photo", &parts).await;
        assert!(!answer.headers().contains_key("caudal-ignored-parts"));
        assert_eq!(seen(answer).await, files(&[("", 6)]));
        let labelled = [&parts[..], &[label()]].concat();
        assert_eq!(seen(send(&service, "/labelled", &labelled).await).await, files(&[("file", 6), ("label", 3)]));
        let unnamed = [&parts[..], &[part("form-data; name=\"x\"; filename=\"\"", "bytes")]].concat();
        assert_eq!(seen(send(&service, "/convert", &unnamed).await).await, files(&[("file", 6), ("x", 5)]));
    }
    for path in ["/photo", "/labelled"] {
        problem(send(&service, path, &[left_empty("file"), label()]).await, 400, "missing_part").await;
    }
    let nameless = part("form-data; name=\"file\"; filename*=UTF-8''", "");
    problem(send(&service, "/photo", &[nameless]).await, 400, "missing_part").await;
    // Somebody chose this one.
    problem(send(&service, "/photo", &[part(FILE, "")]).await, 422, "empty_file").await;
}

#[tokio::test]
async fn a_report_takes_its_photos_under_every_natural_name() {
    let service = service().await;
    let mut source = service.source("report").await;
    for name in ["photo", "photos", "photo[]", "photos[]", "photo[0]"] {
        let photo = part(&format!("form-data; name=\"{name}\"; filename=\"a.jpg\""), "pixels");
        let answer = send(&service, "/reports", &[part(REPORT, FIELDS), photo, left_empty(name)]).await;
        assert_eq!(photos(&service, &mut *source, answer).await, [6], "{name}");
    }
    let bare = send(&service, "/reports", &[part(REPORT, FIELDS), left_empty("photo"), left_empty("other")]).await;
    assert_eq!(photos(&service, &mut *source, bare).await, [0_u64; 0]);
    // The JSON of a form may hold photos too.
    let with_photo = part(REPORT, &json!({"photo": "data:image/png;base64,aGk="}).to_string());
    let photo = part("form-data; name=\"photo\"; filename=\"a.jpg\"", "pixels");
    let both = send(&service, "/reports", &[photo, with_photo]).await;
    assert_eq!(photos(&service, &mut *source, both).await, [6, 2]);
}

#[tokio::test]
async fn what_a_report_has_no_place_for_is_refused_by_name() {
    let service = service().await;
    let photo = |name: &str| part(&format!("form-data; name=\"{name}\"; filename=\"a.jpg\""), "pixels");
    for (extra, code, named) in [
        (photo("picture"), "unknown_part", "\"picture\""),
        (photo("Photo"), "unknown_part", "\"Photo\""),
        (part("form-data; name=\"note\"", "x"), "unknown_part", "\"note\""),
        (part("form-data; name=\"note\"", ""), "unknown_part", "\"note\""),
        (part(REPORT, "{\"kind\": \"found\"}"), "repeated_part", "\"report\""),
    ] {
        let refused = send(&service, "/reports", &[photo("photo"), part(REPORT, FIELDS), extra]).await;
        let detail = problem(refused, 400, code).await["detail"].to_string().replace("\\\"", "\"");
        assert!(detail.contains(named), "{detail}");
    }
    let encoded = photo("photo").replace("\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n");
    problem(send(&service, "/reports", &[part(REPORT, FIELDS), encoded]).await, 415, "content_encoding").await;
    let nested = photo("photo").replace("image/jpeg", "multipart/mixed; boundary=C");
    problem(send(&service, "/reports", &[part(REPORT, FIELDS), nested]).await, 415, "media_type").await;
    let twice = [part("form-data; name=\"pages\"", "1"), part("form-data; name=\"pages\"", "2")];
    problem(send(&service, "/convert", &twice).await, 400, "repeated_part").await;
    let transport = service.stop().await;
    assert_eq!(transport.claim_count(), 0);
}

#[tokio::test]
async fn a_form_for_a_file_names_what_it_did_not_use() {
    let service = service().await;
    let extra = [part("form-data; name=\"n\u{f6}te \\\"1\\\"\"", "x"), part(FILE, "pixels"), part(FILE, "second")];
    let answer = send(&service, "/photo", &extra).await;
    assert_eq!(answer.headers()["caudal-ignored-parts"], "\"n?te ?1?\", \"file\"");
    let wrong = send(&service, "/photo", &[part(&FILE.replace("\"file\"", "\"File\""), "pixels")]).await;
    let detail = problem(wrong, 400, "missing_part").await["detail"].to_string();
    assert!(detail.contains("File"), "{detail}");
}

#[tokio::test]
async fn json_takes_photos_in_every_natural_form() {
    let service = service().await;
    let mut source = service.source("report").await;
    let photo = |bytes: &str| format!("data:image/png;base64,{}", STANDARD.encode(bytes));
    for (body, lengths) in [
        (json!({"photo": photo("one")}), vec![3]),
        (json!({"photos": photo("one")}), vec![3]),
        (json!({"photo": [photo("one")], "photos": []}), vec![3]),
        (json!({"photo": [photo("one")], "photos": [photo("three")]}), vec![3, 5]),
        (json!({"photos[]": [photo("one")]}), vec![3]),
        (json!({"photos": null, "photo": null}), vec![]),
        (json!({"photos": []}), vec![]),
    ] {
        let answer = service.post("/reports").json(&body).send().await.unwrap();
        assert_eq!(photos(&service, &mut *source, answer).await, lengths, "{body}");
    }
    for body in [json!({"photos": [""]}), json!({"photo": ""}), json!({"photo": "aGk="})] {
        let refused = service.post("/reports").json(&body).send().await.unwrap();
        assert!(problem(refused, 400, "bad_data_uri").await["detail"].as_str().unwrap().starts_with("photo"), "{body}");
    }
}

#[tokio::test]
async fn a_refusal_does_not_repeat_the_request() {
    let service = service().await;
    let long = "n".repeat(3 << 20);
    for body in [
        json!(long),
        json!({"photos": {"data": long}}),
        json!({"photos": [[long]]}),
        json!({"photos": [long]}),
        json!({"photo": long}),
        json!({"photo": format!("data:{long};base64,aGk=")}),
        json!({"photo": format!("data:image/png;base64,{long}*")}),
        json!({"id": long}),
    ] {
        let refused = service.post("/reports").json(&body).send().await.unwrap();
        let status = refused.status().as_u16();
        let text = refused.text().await.unwrap();
        assert!(matches!(status, 400 | 413) && text.len() < 1_000, "{status} {text:.2000}");
    }
    let name = "n".repeat(3_000);
    let parts = [part(&format!("form-data; name=\"{name}\"; filename=\"a\""), "x"), part(REPORT, FIELDS)];
    let refused = problem(send(&service, "/reports", &parts).await, 400, "unknown_part").await;
    assert!(refused.to_string().len() < 1_000, "{refused}");
    let encoded = service.post("/reports").header("content-encoding", &name).body("{}");
    let refused = problem(encoded.send().await.unwrap(), 415, "content_encoding").await;
    assert!(refused.to_string().len() < 1_000, "{refused}");
}
