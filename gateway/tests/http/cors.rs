//! CORS: what a page of a listed origin can send and read, and what other pages cannot.

use pipeline::Content;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::service::{Service, finish, problem, read_checked, read_events, soon};
use crate::tokens::{good, issuers};

const ORIGIN: &str = "https://app.example";
const WEB_VIEW: &str = "capacitor://localhost";

const CONFIG: &str = r#"
    [service]
    origins = ["https://app.example", "capacitor://localhost"]
    [[route]]
    path = "/ask"
    flow = "describe"
    limit = { rate = "1/hour", per = "client" }
"#;

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// Whether a page of `origin` may read the answer, and every header of it that a browser hides by default.
#[track_caller]
fn readable(response: &Response, origin: &str) {
    // Of these the Fetch standard lets every page read the first; the others are for the browser itself.
    const OTHERS: [&str; 17] = [
        "cache-control",
        "content-length",
        "content-type",
        "connection",
        "date",
        "vary",
        "transfer-encoding",
        "x-content-type-options",
        "x-frame-options",
        "x-accel-buffering",
        "referrer-policy",
        "content-security-policy",
        "timing-allow-origin",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-allow-methods",
        "access-control-max-age",
    ];
    let headers = response.headers();
    assert_eq!(text(headers, "access-control-allow-origin"), origin);
    assert_eq!(text(headers, "timing-allow-origin"), origin);
    let varies = headers.get_all("vary").iter().any(|value| value.to_str().unwrap().contains("Origin"));
    assert!(varies, "{headers:?}");
    let exposed = text(headers, "access-control-expose-headers").to_ascii_lowercase();
    for name in headers.keys().filter(|name| !OTHERS.contains(&name.as_str())) {
        assert!(exposed.split(", ").any(|exposed| exposed == name.as_str()), "{name} is hidden: {exposed}");
    }
}

/// A page of no other origin than the listed ones may read the answer.
#[track_caller]
fn unreadable(response: &Response) {
    for name in response.headers().keys() {
        assert!(!name.as_str().starts_with("access-control-") && name != "timing-allow-origin", "{name}");
    }
    assert_eq!(text(response.headers(), "vary"), "Origin", "a cache must not give it to a listed page");
}

async fn preflight(service: &Service, path: &str, origin: &str, method: &str, headers: &str) -> Response {
    let request = service.client.request(Method::OPTIONS, service.url(path)).header("origin", origin);
    let request = request.header("access-control-request-method", method);
    let asks = if headers.is_empty() { request } else { request.header("access-control-request-headers", headers) };
    asks.header("sec-fetch-site", "cross-site").send().await.unwrap()
}

fn page(request: RequestBuilder, origin: &str) -> RequestBuilder {
    request.header("origin", origin).header("sec-fetch-site", "cross-site")
}

#[tokio::test]
async fn a_listed_page_reads_results_problems_tickets_and_streams() {
    let service = Service::start(CONFIG).await;
    for origin in [ORIGIN, WEB_VIEW] {
        let post = |path: &str| page(service.post(path).header("gotenberg-trace", "t"), origin);
        let accepted = post("/v1/flows/documents").header("prefer", "respond-async").header("idempotency-key", origin);
        let accepted = accepted.json(&json!({}));
        let first = accepted.try_clone().unwrap().send().await.unwrap();
        assert_eq!((first.status().as_u16(), first.headers().contains_key("location")), (202, true));
        readable(&first, origin);
        readable(&accepted.send().await.unwrap(), origin);
        let id = text(first.headers(), "caudal-request").to_owned();
        let ticket = post(&format!("/v1/requests/{id}/ticket")).send().await.unwrap();
        assert_eq!(ticket.status(), 201);
        readable(&ticket, origin);
        for path in [format!("/v1/requests/{id}/events"), "/v1/tail/documents".into()] {
            let stream = page(service.get(&path), origin).header("accept", "text/event-stream").send().await.unwrap();
            assert_eq!(stream.status(), 200);
            readable(&stream, origin);
        }
        for (request, status) in [
            (post("/nothing"), 404),
            (post("/health"), 405),
            (post("/v1/flows/documents").header("content-encoding", "gzip").body("x"), 415),
            (page(service.get(&format!("/v1/requests/{id}/result")), origin), 409),
            (page(service.get(&format!("/{}", "y".repeat(9_000))), origin), 414),
            (page(service.get("/"), origin), 200),
            (page(service.get("/openapi.json"), origin), 200),
        ] {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status);
            readable(&response, origin);
        }
    }
}

#[tokio::test]
async fn a_listed_page_reads_limits_files_and_streamed_answers() {
    let service = Service::start(CONFIG).await;
    let mut source = service.source("describe").await;
    let asking = tokio::spawn(page(service.post("/ask"), ORIGIN).send());
    let delivery = soon(source.next()).await.unwrap();
    finish(&service.transport, delivery, Content::inline("application/pdf", b"%PDF".as_slice())).await;
    let answered = soon(asking).await.unwrap().unwrap();
    assert!(answered.headers().contains_key("server-timing") && answered.headers().contains_key("ratelimit"));
    readable(&answered, ORIGIN);
    let refused = page(service.post("/ask"), ORIGIN).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    readable(&refused, ORIGIN);
    service.echo("documents").await;
    let streamed = page(service.post("/v1/flows/documents"), ORIGIN).header("accept", "text/event-stream");
    let streamed = streamed.json(&json!({})).send().await.unwrap();
    readable(&streamed, ORIGIN);
    assert!(read_events(streamed).await.0.contains("event: done"));
}

#[tokio::test]
async fn preflights_of_listed_pages_are_answered_without_a_credential() {
    let service = Service::start(&format!("{}{CONFIG}", issuers())).await;
    for (path, method, headers) in [
        ("/ask", "POST", "authorization,content-type,idempotency-key,prefer"),
        ("/ask", "POST", "x-api-key,caudal-webhook-url,traceparent"),
        ("/v1/requests/x/events", "GET", "authorization,last-event-id"),
        ("/v1/requests/x", "DELETE", "authorization"),
        ("/v1/requests/x/ticket", "POST", ""),
        ("/nothing", "PUT", "content-type"),
    ] {
        let answer = preflight(&service, path, ORIGIN, method, headers).await;
        assert_eq!(answer.status(), 204, "{path}");
        let said = |name: &str| text(answer.headers(), name).to_owned();
        assert_eq!(
            (said("access-control-allow-origin"), said("access-control-allow-headers")),
            (ORIGIN.into(), headers.into())
        );
        assert!(said("access-control-allow-methods").contains(method) && !said("access-control-max-age").is_empty());
        let varies: Vec<&str> = answer.headers().get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
        assert!(varies.contains(&"Origin") && varies.contains(&"Access-Control-Request-Headers"), "{varies:?}");
        assert!(!answer.headers().contains_key("access-control-allow-credentials"));
    }
    let unknown = page(service.post("/ask"), ORIGIN).send().await.unwrap();
    assert_eq!(unknown.status(), 401);
    readable(&unknown, ORIGIN);
    let known = page(service.post("/v1/flows/documents").bearer_auth(good("acme")), ORIGIN);
    let known = known.header("prefer", "respond-async").json(&json!({})).send().await.unwrap();
    assert_eq!(known.status(), 202);
}

#[tokio::test]
async fn other_pages_read_nothing() {
    let service = Service::start(CONFIG).await;
    for origin in [
        "https://other.example",
        "null",
        "https://app.example.evil.example",
        "https://app.example:8443",
        "http://app.example",
        "ionic://localhost",
        "capacitor://evil.example",
        "https://app.example, https://other.example",
    ] {
        let refused = preflight(&service, "/ask", origin, "POST", "prefer").await;
        unreadable(&refused);
        let body: Value = problem(refused, 403, "foreign_origin").await;
        assert!(body["detail"].as_str().unwrap().contains("[service] origins"), "{body}");
        let sent = page(service.post("/ask"), origin).send().await.unwrap();
        unreadable(&sent);
        problem(sent, 403, "cross_site").await;
        unreadable(&page(service.get("/health"), origin).send().await.unwrap());
    }
    unreadable(&service.get("/health").send().await.unwrap());
    // No page is listed: answers do not differ.
    let closed = Service::start("").await;
    let refused = preflight(&closed, "/health", ORIGIN, "GET", "").await;
    assert_eq!((refused.status().as_u16(), refused.headers().get("vary")), (403, None));
}

/// Without an origin it is no preflight: the answer names the methods.
#[tokio::test]
async fn options_without_an_origin_name_the_methods() {
    let service = Service::start(CONFIG).await;
    for (path, allowed) in [("/ask", "POST"), ("/v1/requests/x", "DELETE"), ("/health", "HEAD")] {
        let answer = service.client.request(Method::OPTIONS, service.url(path)).send().await.unwrap();
        assert!(text(answer.headers(), "allow").contains(allowed), "{path}: {:?}", answer.headers());
        problem(answer, 405, "method_not_allowed").await;
    }
}

#[test]
fn origins_are_checked() {
    for (origin, remedy) in [
        ("https://app.example/", "write \"https://app.example\""),
        ("https://app.example/login", "write \"https://app.example\""),
        ("app.example", "write \"https://app.example\""),
        ("null", "capacitor://localhost"),
    ] {
        let (_, problems) = read_checked(&format!("[service]\norigins = [\"{ORIGIN}\", \"{origin}\"]\n"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(remedy) && problems[0].contains(origin), "{problems:?}");
    }
    assert_eq!(read_checked(CONFIG).1, Vec::<String>::new());
}
