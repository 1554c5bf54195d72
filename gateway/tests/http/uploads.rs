//! Bodies: which are accepted, which are refused with which problem, and that a failed one leaves nothing.

use bytes::Bytes;
use futures_util::stream;
use pipeline::Transport;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::service::{Service, add, form, problem, read_to_end, soon, token};

const ROUTES: &str = r#"
    [limits]
    upload_grace_ms = 60
    upload_rate = "1 KiB"
    [[route]]
    path = "/photo"
    flow = "describe"
    body = { multipart = "file", max_bytes = "1 MiB", types = ["image/*"], max_parts = 4 }
    [[route]]
    path = "/example"
    flow = "describe"
    body = { parts = ["file", "label"], max_bytes = "1 MiB" }
    [[route]]
    path = "/raw"
    flow = "describe"
    body = { raw = true, types = ["image/jpeg"], max_bytes = "300 KiB" }
    [[route]]
    path = "/json"
    flow = "describe"
    body = { json = true, max_bytes = "1 KiB" }
"#;

/// A service with generous upload limits.
async fn patient() -> Service {
    Service::start(&ROUTES.replace("upload_grace_ms = 60", "upload_grace_ms = 20000")).await
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 % 253) as u8).collect()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

async fn nothing_left(service: Service) {
    let transport = service.stop().await;
    assert_eq!(transport.backlog(&token("describe")).await.unwrap().interactive, 0);
    assert_eq!(transport.claim_count(), 0);
}

#[tokio::test]
async fn a_file_arrives_whole_inline_or_by_reference() {
    let service = patient().await;
    service.echo("describe").await;
    for (length, claim) in [(1, false), (256 << 10, false), ((256 << 10) + 1, true), (1 << 20, true)] {
        let bytes = pattern(length);
        let body = add(form("ignored", "text/plain", b"x".to_vec()), "file", "image/jpeg", bytes.clone());
        let body = add(body, "file", "image/jpeg", b"a second one".to_vec());
        let response = service.post("/photo").multipart(body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        assert_eq!(response.headers()["caudal-ignored-parts"], "\"ignored\", \"file\"");
        let seen: Value = response.json().await.unwrap();
        let part = json!({"name": "", "type": "image/jpeg", "length": length, "claim": claim, "sum": sum(&bytes)});
        assert_eq!(seen["parts"], json!([part]));
    }
}

#[tokio::test]
async fn parts_of_a_form_stay_separate() {
    let service = patient().await;
    service.echo("describe").await;
    let body = add(form("file", "image/png", pattern(400_000)), "label", "text/plain", b"cat".to_vec());
    let response = service.post("/example").multipart(body).send().await.unwrap();
    let seen: Value = response.json().await.unwrap();
    assert_eq!((&seen["parts"][0]["name"], &seen["parts"][0]["claim"]), (&json!("file"), &json!(true)));
    assert_eq!((&seen["parts"][1]["name"], &seen["parts"][1]["length"]), (&json!("label"), &json!(3)));
    let lacking = service.post("/example").multipart(form("file", "image/png", pattern(400_000))).send().await.unwrap();
    let body = problem(lacking, 400, "missing_part").await;
    assert!(body["detail"].as_str().unwrap().contains("\"label\""));
}

#[tokio::test]
async fn wrong_forms_are_refused_and_leave_nothing() {
    let service = patient().await;
    let large = || pattern(400_000);
    let send = |body| service.post("/photo").multipart(body).send();
    let body = problem(send(form("photo", "image/png", large())).await.unwrap(), 400, "missing_part").await;
    assert!(body["detail"].as_str().unwrap().contains("\"file\""), "{body}");
    let body = problem(send(form("file", "text/html", large())).await.unwrap(), 415, "media_type").await;
    assert!(body["detail"].as_str().unwrap().contains("image/*"), "{body}");
    problem(send(form("file", "image/png", Vec::new())).await.unwrap(), 422, "empty_file").await;
    let many = (0..5).fold(form("file", "image/png", large()), |many, _| add(many, "x", "text/plain", Vec::new()));
    problem(send(many).await.unwrap(), 400, "too_many_parts").await;

    problem(service.post("/photo").body("x").send().await.unwrap(), 415, "media_type").await;
    problem(service.post("/photo").json(&json!({})).send().await.unwrap(), 415, "media_type").await;
    let zipped =
        service.post("/photo").header("content-encoding", "gzip").multipart(form("file", "image/png", large()));
    problem(zipped.send().await.unwrap(), 415, "content_encoding").await;

    let file = "--B\r\nContent-Disposition: form-data; name=\"file\"\r\nContent-Type: image/png\r\n\r\n";
    let endless_header = format!("--B\r\nContent-Disposition: form-data; name=\"{}", "x".repeat(900_000));
    for (text, code) in [
        (format!("{file}{}", "p".repeat(400_000)), "malformed_multipart"),
        (format!("{file}{}\r\n--B\r\n", "p".repeat(400_000)), "malformed_multipart"),
        ("no form at all".to_owned(), "malformed_multipart"),
        (endless_header, "malformed_multipart"),
        (format!("--B\r\nX-Long: {}\r\n\r\n\r\n--B--", "y".repeat(5_000)), "malformed_multipart"),
    ] {
        let request = service.post("/photo").header("content-type", "multipart/form-data; boundary=B").body(text);
        problem(request.send().await.unwrap(), 400, code).await;
    }
    let unbounded = service.post("/photo").header("content-type", "multipart/form-data").body("x");
    problem(unbounded.send().await.unwrap(), 400, "malformed_multipart").await;
    nothing_left(service).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_by_its_header_by_its_part_and_while_it_streams() {
    let service = patient().await;
    let announced = service.post("/photo").multipart(form("file", "image/png", pattern(2 << 20))).send().await.unwrap();
    let body = problem(announced, 413, "too_large").await;
    assert!(body["detail"].as_str().unwrap().contains("1 MiB"), "{body}");
    // Just above the file's limit, within the allowance for the form's framing.
    let by_part =
        service.post("/photo").multipart(form("file", "image/png", pattern((1 << 20) + 1))).send().await.unwrap();
    problem(by_part, 413, "too_large").await;
    let chunks = stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(Bytes::from(pattern(16 << 10)))));
    let streamed = service.post("/raw").header("content-type", "image/jpeg").body(reqwest::Body::wrap_stream(chunks));
    problem(streamed.send().await.unwrap(), 413, "too_large").await;
    nothing_left(service).await;
}

#[tokio::test]
async fn an_announced_giant_is_refused_before_it_is_sent() {
    let service = Service::start(ROUTES).await;
    let mut stream = service
        .raw("POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 9000000000\r\n\r\n")
        .await;
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_slow_body_is_refused() {
    let service = Service::start(ROUTES).await;
    let mut stream = service
        .raw("POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\nabc")
        .await;
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("too_slow"), "{answer}");
    nothing_left(service).await;
}

#[tokio::test]
async fn half_a_body_is_no_request() {
    let service = patient().await;
    let mut stream = service
        .raw("POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 300000\r\n\r\n")
        .await;
    stream.write_all(&pattern(280_000)).await.unwrap();
    drop(stream);
    let mut stream = service
        .raw("POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await;
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await;
    nothing_left(service).await;
}

#[tokio::test]
async fn raw_and_json_bodies_are_what_they_say() {
    let service = patient().await;
    service.echo("describe").await;
    let image = service.post("/raw").header("content-type", "image/jpeg").body(pattern(300 << 10));
    let seen: Value = image.send().await.unwrap().json().await.unwrap();
    assert_eq!(seen["parts"][0]["sum"], sum(&pattern(300 << 10)));
    let other = service.post("/raw").header("content-type", "image/png").body("x").send().await.unwrap();
    problem(other, 415, "media_type").await;
    let empty = service.post("/raw").header("content-type", "image/jpeg").body("").send().await.unwrap();
    problem(empty, 422, "empty_file").await;

    let json = |text: String| service.post("/json").header("content-type", "application/json").body(text).send();
    for text in [String::new(), "{".into(), "{} {}".into(), "[".repeat(1000), "{\"a\": NaN}".into()] {
        problem(json(text).await.unwrap(), 400, "malformed_json").await;
    }
    problem(json(format!("\"{}\"", "x".repeat(1100))).await.unwrap(), 413, "too_large").await;
    let plain = service.post("/json").header("content-type", "text/plain").body("{}").send().await.unwrap();
    problem(plain, 415, "media_type").await;
    problem(service.post("/json").body("{}").send().await.unwrap(), 415, "media_type").await;

    // As deep as fits and deeper: neither the parser nor the drop of its result may recurse.
    for (depth, status, code) in [(250_000, 400, "malformed_json"), (1_000_000, 413, "too_large")] {
        let deep = service.post("/v1/flows/documents").header("content-type", "application/json");
        problem(deep.body("[".repeat(depth)).send().await.unwrap(), status, code).await;
    }
    // 415 on any route, before anything is decompressed.
    for path in ["/raw", "/json", "/photo", "/v1/flows/documents"] {
        let zipped = service.post(path).header("content-encoding", "gzip").body(vec![0; 1 << 20]);
        problem(zipped.send().await.unwrap(), 415, "content_encoding").await;
    }
}

/// Part of it was stored already.
#[tokio::test]
async fn a_body_that_slows_down_is_refused_and_leaves_nothing() {
    let service =
        Service::start(&ROUTES.replace("upload_grace_ms = 60", "upload_ms = 1500").replace("1 MiB", "10 MiB")).await;
    let head = "--B\r\nContent-Disposition: form-data; name=\"file\"\r\nContent-Type: image/jpeg\r\n\r\n";
    let mut stream = service
        .raw(format!(
            "POST /photo HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: \
             10000000\r\n\r\n{head}"
        ))
        .await;
    stream.write_all(&pattern(600 << 10)).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let dwindling = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = soon(reader.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("too_slow"), "{answer}");
    drop(reader);
    soon(dwindling).await.unwrap();
    nothing_left(service).await;
}

#[tokio::test]
async fn hostile_forms_are_refused_or_harmless() {
    let service = patient().await;
    service.echo("describe").await;
    let send = |text: String| {
        let request = service.post("/photo").header("content-type", "multipart/form-data; boundary=B");
        request.header("content-length", text.len()).body(text).send()
    };
    let empty = "--B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n\r\n";
    let mut stream = service
        .raw("POST /photo HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    // The server closes long before the end.
    let parts = empty.replace("name=\"file\"", "name=\"x\"").repeat(100);
    let chunk = format!("{:x}\r\n{parts}\r\n", parts.len());
    for _ in 0..1_000 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let answer = read_to_end(&mut stream).await;
    assert!(answer.is_empty() || answer.contains("too_many_parts"), "{answer}");

    let named = |file_name: &str| {
        format!(
            "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{file_name}\"\r\nContent-Type: \
             image/png\r\n\r\npixels\r\n--B--\r\n"
        )
    };
    for harmless in ["../../etc/passwd", "/etc/passwd", "..\\..\\x", "", ".", "CON", "ä\u{202e}gpj.exe"] {
        assert_eq!(send(named(harmless)).await.unwrap().status(), 200, "{harmless}");
    }
    for wrong in ["a\0b".to_owned(), "n".repeat(5_000), "n".repeat(1 << 20)] {
        let refused = send(named(&wrong)).await.unwrap().status().as_u16();
        assert!(matches!(refused, 400 | 413), "{refused}");
    }
    nothing_left(service).await;
}
