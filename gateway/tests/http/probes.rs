//! `/health`, `/ready`, `/metrics`, `/v1/flows`, and paths that do not exist.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use gateway::ReadinessCheck;
use pipeline::testing::MemoryTransport;
use serde_json::{Value, json};

use crate::service::{FLOWS, Service, problem};

#[tokio::test]
async fn readiness_names_the_component_and_checks_once_for_many() {
    let (asked, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    let (counter, switch) = (Arc::clone(&asked), Arc::clone(&broken));
    let index: ReadinessCheck = Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        let result = if switch.load(Ordering::SeqCst) { Err("disk /dev/sda1 is full".to_owned()) } else { Ok(()) };
        Box::pin(async move { result })
    });
    let fine: ReadinessCheck = Arc::new(|| Box::pin(async { Ok(()) }));
    let checks = vec![("index".to_owned(), index), ("broker".to_owned(), fine)];
    let service = Service::start_on(MemoryTransport::with_flows(FLOWS), "", checks.clone()).await;
    let answers = join_all((0..20).map(|_| service.get("/ready").send())).await;
    assert!(asked.load(Ordering::SeqCst) <= 2, "{asked:?}");
    for answer in answers {
        let body = problem(answer.unwrap(), 503, "not_ready").await;
        assert_eq!(body["detail"], "not ready: index");
    }
    broken.store(false, Ordering::SeqCst);
    let service = Service::start_on(MemoryTransport::with_flows(FLOWS), "", checks).await;
    assert_eq!(service.get("/ready").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_built_in_paths_answer() {
    let service = Service::start("[service]\nname = \"petalert\"\n[[route]]\npath = \"/x\"\nflow = \"describe\"").await;
    let health: Value = service.get("/health/").send().await.unwrap().json().await.unwrap();
    assert_eq!(health, json!({"status": "ok", "service": "petalert"}));
    assert_eq!(service.get("/metrics").send().await.unwrap().text().await.unwrap(), "caudal_up 1\n");
    let page = service.get("/").send().await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("script-src 'self'"));
    assert_eq!(page.headers()["x-frame-options"], "DENY");

    let served: Value = service.get("/v1/flows").send().await.unwrap().json().await.unwrap();
    assert_eq!(served["service"], "petalert");
    assert_eq!(served["flows"].as_array().unwrap().len(), FLOWS.len());
    assert_eq!(served["flows"][0]["backlog"], json!({"interactive": 0, "bulk": 0}));
    assert_eq!(served["routes"], json!([{"path": "/x", "method": "POST", "flow": "describe"}]));
}

#[tokio::test]
async fn an_unknown_path_is_a_problem_too() {
    let service = Service::start("").await;
    problem(service.get("/nothing").send().await.unwrap(), 404, "no_route").await;
    let wrong = service.post("/health").send().await.unwrap();
    assert_eq!(wrong.headers()["allow"], "GET,HEAD");
    problem(wrong, 405, "method_not_allowed").await;
}
