//! Limits of clients and of the whole.

use serde_json::json;

use crate::service::{Service, problem};

const ROUTE: &str = r#"
    [[route]]
    path = "/rare"
    flow = "describe"
    limit = { rate = "3/hour", per = "client" }
"#;

#[tokio::test]
async fn a_client_has_its_rate_whatever_it_says_of_itself() {
    let service = Service::start(ROUTE).await;
    service.echo("describe").await;
    for i in 0..3 {
        let request = service.post("/rare").header("x-forwarded-for", format!("10.0.0.{i}"));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let refused = service.post("/rare").header("x-forwarded-for", "10.9.9.9").send().await.unwrap();
    let pause: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1_100..=1_200).contains(&pause), "{pause}");
    assert!(refused.headers().contains_key("caudal-request"));
    problem(refused, 429, "rate_limited").await;
}

#[tokio::test]
async fn rates_can_be_switched_off() {
    let service = Service::start(&format!("[limits]\nenabled = false\n{ROUTE}")).await;
    service.echo("describe").await;
    for _ in 0..10 {
        assert_eq!(service.post("/rare").send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn event_streams_are_counted() {
    let service = Service::start("[limits]\nstreams = 1").await;
    let ask = || service.post("/v1/flows/documents").header("accept", "text/event-stream").json(&json!({})).send();
    let first = ask().await.unwrap();
    assert_eq!(first.status(), 200);
    let refused = ask().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, 503, "streams_full").await;
}
