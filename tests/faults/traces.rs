//! Traces reach a collector, across processes; one that is away, full or silent costs its spans and nothing else.

use rustix::process::Signal;

use crate::collector::{Arrived, Collector, Mood};
use crate::oracle::Oracle;
use crate::outside::Broker;
use crate::world::{World, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// In the environment of the processes.
const SECRET: &str = "collector-secret-7b1f";

/// OTLP's numbers of the kinds of spans.
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

fn world(collector: &Collector, sample: &str) -> World {
    let set = settings(collector, sample);
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    World::new("tests/faults/flows.toml", &set).with_environment("COLLECTOR_SECRET", SECRET)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_one_trace_across_gateway_and_worker() {
    let collector = Collector::start(Mood::Good).await;
    let world = world(&collector, "0.0");
    let gateway = world.start_gateway().await;
    let worker = world.start_beside("worker", "worker", &["--flows", "work"]).await;
    let post = || gateway.post("/v1/flows/work").body("abc");
    // Not sampled: neither by its caller nor by the ratio.
    for request in [post(), post().header("traceparent", format!("00-{}-{CALLER}-00", "1".repeat(32)))] {
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let answer = post().header("traceparent", format!("00-{TRACE}-{CALLER}-01")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let (id, place, timing) = (header("caudal-request"), header("traceparent"), header("server-timing"));
    for part in ["intake", "flow", "queue", "trap", "digest", "mark", "respond", "total"] {
        assert!(timing.contains(&format!("{part};dur=")), "{part}: {timing}");
    }
    worker.signal(Signal::TERM);
    assert!(worker.died().await.success(), "{}", world.log("worker"));
    gateway.signal(Signal::TERM);
    assert!(gateway.died().await.success(), "{}", world.log("gateway"));

    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace == TRACE && span.service == "faults"), "{spans:#?}");
    let of = |kind: i32| spans.iter().filter(|span| span.kind == kind).collect::<Vec<&Arrived>>();
    let ([request], [flow]) = (&*of(SERVER), &*of(CONSUMER)) else { panic!("{spans:#?}") };
    assert_eq!((&*request.name, &*request.parent), ("POST /v1/flows/work", CALLER));
    assert_eq!(place, format!("00-{TRACE}-{}-01", request.id));
    let has = |span: &Arrived, name: &str, value: &str| span.attributes.contains(&(name.to_owned(), value.to_owned()));
    assert!(has(request, "http.response.status_code", "200") && has(request, "caudal.request", &id), "{request:?}");
    assert_eq!((&*flow.name, &flow.parent), ("work", &request.id));
    assert!(has(flow, "messaging.message.id", &id) && !flow.failed, "{flow:?}");
    let mut stages = of(INTERNAL);
    // A stage may be told of after the one that it handed over to.
    stages.sort_by_key(|stage| stage.begun);
    let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["trap", "digest", "mark", "respond"]);
    for stage in stages {
        assert!(stage.parent == flow.id && stage.begun <= stage.ended && has(stage, "caudal.events", "1"), "{stage:?}");
    }
    let heads = collector.heads();
    assert!(heads.iter().all(|head| head.starts_with("POST /v1/traces HTTP/1.1")), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains(SECRET)), "{heads:?}");
    for log in ["gateway", "worker"] {
        assert!(!world.log(log).contains(SECRET));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_does_not_take_traces_harms_nothing() {
    for mood in [Some(Mood::Full), Some(Mood::Silent), None] {
        let collector = Collector::start(mood.unwrap_or(Mood::Good)).await;
        let world = world(&collector, "1.0");
        if mood.is_none() {
            // Nobody listens there any more.
            drop(collector);
        }
        let process = world.start().await;
        let broker = Broker::open(&world.data()).await;
        let mut oracle = Oracle::default();
        oracle.post_until_accepted(&process, "work", 200).await;
        assert_eq!(oracle.verdict(&process, &broker).await, crate::oracle::Counts::default());
        // Each is a span of the request, one of the flow and four of stages, all taken over at once.
        eventually("spans are made", || async { process.metric("caudal_trace_spans_total").await >= 1200.0 }).await;
        process.signal(Signal::TERM);
        assert!(process.died().await.success(), "{mood:?}: {}", world.log("all"));
        assert!(!world.log("all").contains("panicked"), "{}", world.log("all"));
    }
}
