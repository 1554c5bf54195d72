//! Traces: a request is one trace across processes; an unavailable collector loses spans and affects nothing else.

use rustix::process::Signal;

use crate::broker_client::Broker;
use crate::cluster::{Cluster, eventually};
use crate::oracle::Oracle;
use crate::otlp_collector::{Collector, ReceivedSpan, ResponseMode};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// The span id of the caller.
const CALLER: &str = "00f067aa0ba902b7";
/// A header of the exporter, set in the environment of the processes.
const SECRET: &str = "collector-secret-7b1f";

/// OTLP span kinds.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CONSUMER: i32 = 5;

fn settings(collector: &Collector, sample: &str) -> [String; 3] {
    [
        format!("telemetry.otlp={}", collector.url),
        format!("telemetry.sample={sample}"),
        "telemetry.headers.authorization={env=\"COLLECTOR_SECRET\"}".to_owned(),
    ]
}

fn cluster(collector: &Collector, sample: &str) -> Cluster {
    let set = settings(collector, sample);
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    Cluster::new("tests/faults/flows.toml", &set).with_environment("COLLECTOR_SECRET", SECRET)
}

/// Checks the spans of one request: that of the gateway, that of the flow below it, and one per stage below that.
fn check_spans(spans: &[ReceivedSpan], id: &str, traceparent: &str) {
    assert!(spans.iter().all(|span| span.trace == TRACE && span.of_process("service.name") == "faults"), "{spans:#?}");
    let of = |kind: i32| spans.iter().filter(|span| span.kind == kind).collect::<Vec<&ReceivedSpan>>();
    let ([request], [flow]) = (&*of(SERVER), &*of(CONSUMER)) else { panic!("{spans:#?}") };
    assert_eq!((&*request.name, &*request.parent), ("POST /v1/flows/work", CALLER));
    assert_eq!(traceparent, format!("00-{TRACE}-{}-01", request.id));
    let has =
        |span: &ReceivedSpan, name: &str, value: &str| span.attributes.contains(&(name.to_owned(), value.to_owned()));
    assert!(has(request, "http.response.status_code", "200") && has(request, "caudal.request", id), "{request:?}");
    assert_eq!((&*flow.name, &flow.parent), ("work", &request.id));
    assert!(has(flow, "messaging.message.id", id) && !flow.failed, "{flow:?}");
    let mut stages = of(INTERNAL);
    // A stage's span may be exported after that of the next stage.
    stages.sort_by_key(|stage| stage.begun);
    let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["trap", "digest", "mark", "respond"]);
    for stage in stages {
        assert!(stage.parent == flow.id && stage.begun <= stage.ended && has(stage, "caudal.events", "1"), "{stage:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_one_trace_across_gateway_and_worker() {
    let collector = Collector::start(ResponseMode::Accept).await;
    let cluster = cluster(&collector, "0.0");
    let gateway = cluster.start_gateway().await;
    let worker = cluster.start_beside("worker", "worker", &["--flows", "work"]).await;
    let post = || gateway.post("/v1/flows/work").body("abc");
    // Not sampled, neither by the caller nor by the configured ratio.
    for request in [post(), post().header("traceparent", format!("00-{}-{CALLER}-00", "1".repeat(32)))] {
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let answer = post().header("traceparent", format!("00-{TRACE}-{CALLER}-01")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let (id, traceparent, timing) = (header("caudal-request"), header("traceparent"), header("server-timing"));
    for part in ["intake", "flow", "queue", "trap", "digest", "mark", "respond", "total"] {
        assert!(timing.contains(&format!("{part};dur=")), "{part}: {timing}");
    }
    worker.signal(Signal::TERM);
    assert!(worker.wait_for_exit().await.success(), "{}", cluster.log("worker"));
    gateway.signal(Signal::TERM);
    assert!(gateway.wait_for_exit().await.success(), "{}", cluster.log("gateway"));

    check_spans(&collector.spans(), &id, &traceparent);
    for span in collector.spans() {
        let role = if span.kind == SERVER { "gateway" } else { "worker" };
        assert_eq!(span.of_process("caudal.role"), role, "{span:?}");
        assert!(
            ["service.instance.id", "host.name", "service.version"]
                .iter()
                .all(|name| !span.of_process(name).is_empty())
        );
    }
    let heads = collector.heads();
    assert!(heads.iter().all(|head| head.starts_with("POST /v1/traces HTTP/1.1")), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains(SECRET)), "{heads:?}");
    for log in ["gateway", "worker"] {
        assert!(!cluster.log(log).contains(SECRET));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_usual_variable_names_the_collector_if_the_config_does_not() {
    let collector = Collector::start(ResponseMode::Accept).await;
    let cluster = Cluster::new("tests/faults/flows.toml", &["telemetry.sample=1.0"]);
    let cluster = cluster.with_environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let process = cluster.start().await;
    assert_eq!(process.post("/v1/flows/work").body("abc").send().await.unwrap().status(), 200);
    process.signal(Signal::TERM);
    assert!(process.wait_for_exit().await.success(), "{}", cluster.log("all"));
    assert!(collector.spans().iter().any(|span| span.kind == SERVER), "{:#?}", collector.spans());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unavailable_collector_does_not_affect_requests() {
    for mode in [Some(ResponseMode::Unavailable), Some(ResponseMode::NeverAnswer), None] {
        let collector = Collector::start(mode.unwrap_or(ResponseMode::Accept)).await;
        let cluster = cluster(&collector, "1.0");
        if mode.is_none() {
            // Nothing listens on its port any more.
            drop(collector);
        }
        let process = cluster.start().await;
        let broker = Broker::open(&cluster.data()).await;
        let mut oracle = Oracle::default();
        oracle.post_until_accepted(&process, "work", 200).await;
        assert_eq!(oracle.verdict(&process, &broker).await, crate::oracle::Violations::default());
        // Six spans per request: one of the request, one of the flow and four of stages.
        eventually("spans are recorded", || async { process.metric("caudal_trace_spans_total").await >= 1200.0 }).await;
        process.signal(Signal::TERM);
        assert!(process.wait_for_exit().await.success(), "{mode:?}: {}", cluster.log("all"));
        assert!(!cluster.log("all").contains("panicked"), "{}", cluster.log("all"));
    }
}
