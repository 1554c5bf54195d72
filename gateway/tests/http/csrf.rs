//! CSRF and DNS rebinding: requests that pages of other sites make browsers send.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::service::{Service, problem, read_to_end};
use crate::tokens::{good, issuers};

const ORIGINS: &str = "[service]\norigins = [\"https://app.example\"]\n";

/// Submits an event with the given headers.
async fn submit(service: &Service, headers: &[(&str, &str)]) -> reqwest::Response {
    let request = service.post("/v1/flows/documents").header("prefer", "respond-async").json(&json!({}));
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

#[tokio::test]
async fn a_page_of_another_site_sends_nothing() {
    let service = Service::start(ORIGINS).await;
    let ours = service.url("");
    let refused: [&[(&str, &str)]; 7] = [
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://127.0.0.1:1")],
        &[("origin", "https://app.example.evil")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
        &[("sec-fetch-site", "same-site"), ("origin", "http://localhost:3000")],
    ];
    for headers in refused {
        problem(submit(&service, headers).await, 403, "cross_site").await;
    }
    let taken: [&[(&str, &str)]; 6] = [
        &[],
        &[("origin", &ours)],
        &[("sec-fetch-site", "same-origin"), ("origin", &ours)],
        &[("sec-fetch-site", "same-origin"), ("origin", "https://outside.example")],
        &[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")],
        &[("sec-fetch-site", "none")],
    ];
    for headers in taken {
        assert_eq!(submit(&service, headers).await.status(), 202, "{headers:?}");
    }
    // A link from another site may be followed.
    let followed = service.get("/health").header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(followed.status(), 200);
    let delete = service.client.delete(service.url("/v1/requests/x")).header("origin", "https://evil.example");
    problem(delete.send().await.unwrap(), 403, "cross_site").await;
}

/// What `/health` answers to a request that names `host`.
async fn status_of(service: &Service, host: &str) -> String {
    let mut stream = service.raw(format!("GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
    let answer = read_to_end(&mut stream).await;
    // The connection may be closed already.
    let _ = stream.shutdown().await;
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn without_authentication_a_foreign_host_is_refused() {
    let service = Service::start(ORIGINS).await;
    for host in ["127.0.0.1", "127.0.0.1:80", "[::1]:8080", "localhost", "LocalHost:1", "app.example", "app.example:8"]
    {
        assert_eq!(status_of(&service, host).await, "200", "{host}");
    }
    for host in
        ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "a b", "h\u{e9}"]
    {
        assert_eq!(status_of(&service, host).await, "403", "{host}");
    }
    let refused = service.get("/v1/flows").header("host", "evil.example").send().await.unwrap();
    let body: Value = problem(refused, 403, "unknown_host").await;
    assert!(body["detail"].as_str().unwrap().contains("evil.example"), "{body}");

    let asked = Service::start(&issuers()).await;
    let named = asked.get("/v1/flows").bearer_auth(good("acme")).header("host", "caudal.example");
    assert_eq!(named.send().await.unwrap().status(), 200);
    let open = Service::start("[service]\nlisten = \"0.0.0.0:8080\"\ninsecure = true\n").await;
    assert_eq!(status_of(&open, "caudal.example").await, "200");
}
