//! The process is killed at each kill point of each flow: every accepted request ends exactly once, and no body or file
//! is left behind.

use std::path::PathBuf;

use futures_util::StreamExt;

use crate::broker_client::Broker;
use crate::cluster::{Cluster, Process, eventually, form};
use crate::oracle::{Oracle, Reply, Violations, Want, ask};
use crate::test_images::{jpeg, scene};

/// Events per flow and kill point.
const EVENTS: usize = 25;
/// Concurrent requests.
const CONCURRENCY: usize = 4;

/// Where the process dies and on which pass: in the middle of the events. One ledger entry covers many events, so its
/// kill point is passed less often.
const POINTS: [(&str, u32); 5] = [("submitted", 9), ("fetched", 12), ("outcome", 7), ("noted", 2), ("acknowledged", 7)];

const FLOWS: [&str; 4] = ["describe", "index-photo", "look-alikes", "report"];

/// A photo; every tenth is too large for its message and is stored as a claim.
fn photo(serial: u64) -> Vec<u8> {
    let side = if serial.is_multiple_of(10) { 1200 } else { 96 };
    jpeg(&scene(u32::try_from(serial).unwrap(), side, side * 3 / 4), 95)
}

fn path(flow: &str, serial: u64) -> (String, &'static str) {
    match flow {
        "describe" => ("/embeddings/generate".into(), "file"),
        "index-photo" => (format!("/embeddings/index/r{serial}"), "file"),
        "look-alikes" => ("/embeddings/search_image?limit=3".into(), "file"),
        _ => ("/reports".into(), "photo"),
    }
}

async fn send(process: &Process, flow: &str, serial: u64) -> (u64, (Option<String>, Reply)) {
    let (path, field) = path(flow, serial);
    let mut form = form(field, photo(serial));
    if flow == "report" {
        form = form.text("report", "{}");
    }
    (serial, ask(process.post(&path).multipart(form)).await)
}

/// Sends until [`EVENTS`] were accepted and the process died once and was restarted. Returns the new process.
async fn send_across_a_death(cluster: &Cluster, mut process: Process, oracle: &mut Oracle, flow: &str) -> Process {
    let target = oracle.accepted.len() + EVENTS;
    let mut died = false;
    while oracle.accepted.len() < target || !died {
        let missing = target.saturating_sub(oracle.accepted.len()).min(CONCURRENCY);
        let serials: Vec<u64> = (0..missing).map(|_| oracle.mint()).collect();
        let sent = serials.into_iter().map(|serial| send(&process, flow, serial));
        let replies: Vec<_> = futures_util::stream::iter(sent).buffer_unordered(CONCURRENCY).collect().await;
        for (serial, reply) in replies {
            let reply = oracle.note(serial, Want::Done, reply);
            assert!(!matches!(reply, Reply::Refused { .. }), "{reply:?}\n{}", cluster.log("all"));
        }
        if missing == 0 {
            eventually("the armed point is passed", || async { cluster.has_fired() }).await;
        }
        if cluster.has_fired() && !died {
            process.wait_for_exit().await;
            died = true;
            process = cluster.start().await;
        }
    }
    process
}

/// The files of the data folder before the test. Afterwards there are no others, and no queued event, body or dead
/// letter.
struct Baseline(Vec<PathBuf>);

impl Baseline {
    fn of(cluster: &Cluster) -> Self {
        Self(cluster.files())
    }

    async fn assert_unchanged(&self, cluster: &Cluster, broker: &Broker) {
        assert_eq!(broker.messages("DEAD").await, 0);
        // Includes bodies stored by a process that died before it submitted their event.
        eventually("bodies are dropped", || async { broker.messages("BLOB").await == 0 }).await;
        assert_eq!(broker.waiting().await, 0);
        let new: Vec<_> = cluster.files().into_iter().filter(|file| !self.0.contains(file)).collect();
        assert!(new.is_empty(), "left behind: {new:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_events_survive_a_death_at_every_point_of_every_flow() {
    let mut set: Vec<String> = FLOWS.iter().map(|flow| format!("flow.{flow}.ack_wait_ms=1500")).collect();
    set.push("nats.claims_orphaned_after_s=8".into());
    let cluster = Cluster::new("config/petalert.toml", &set.iter().map(String::as_str).collect::<Vec<_>>());
    let mut process = cluster.start().await;
    let baseline = Baseline::of(&cluster);
    let mut oracle = Oracle::default();
    let mut redeliveries = 0;
    for flow in FLOWS {
        let before: Vec<u64> = oracle.accepted.values().map(|(serial, _)| *serial).collect();
        for (point, times) in POINTS {
            cluster.arm(point, if point == "noted" { "*" } else { flow }, times);
            process = send_across_a_death(&cluster, process, &mut oracle, flow).await;
        }
        let broker = Broker::open(&cluster.data()).await;
        assert_eq!(oracle.verdict(&process, &broker).await, Violations::default(), "{flow}\n{}", cluster.log("all"));
        redeliveries += broker.redeliveries(flow).await;
        let mut serials: Vec<u64> = oracle.accepted.values().map(|(serial, _)| *serial).collect();
        serials.retain(|serial| !before.contains(serial));
        compare(&process, &mut oracle, flow, serials).await;
    }
    let broker = Broker::open(&cluster.data()).await;
    assert_eq!(
        oracle.verdict(&process, &broker).await,
        Violations::default(),
        "answers differ from those of a run without faults"
    );
    assert_eq!(oracle.accepted.len(), FLOWS.len() * POINTS.len() * EVENTS);
    assert!(redeliveries >= 20, "only {redeliveries} redeliveries: the deaths came too late");
    baseline.assert_unchanged(&cluster, &broker).await;
    process.kill().await;
}

/// Sends the same photos without faults: sets the answers to expect, and checks that indexed photos are found.
async fn compare(process: &Process, oracle: &mut Oracle, flow: &str, serials: Vec<u64>) {
    for serial in serials {
        let (path, field) = path(flow, serial);
        match flow {
            "describe" | "look-alikes" => {
                let answer = process.post_file(&path, field, photo(serial)).await.unwrap();
                assert_eq!(answer.status(), 200);
                oracle.note_answer(&answer);
                let want = Want::Answer(answer.bytes().await.unwrap().to_vec());
                oracle.want(serial, want);
            }
            _ => {
                let found = process.post_file("/embeddings/search_image?limit=1", "file", photo(serial)).await.unwrap();
                oracle.note_answer(&found);
                let found: serde_json::Value = found.json().await.unwrap();
                let score = found["matches"][0]["score"].as_f64().unwrap();
                assert!(score > 0.9999, "photo {serial} of {flow} is not in the index: {found}");
                if flow == "index-photo" {
                    assert_eq!(found["matches"][0]["report_id"], format!("r{serial}"));
                }
            }
        }
    }
}

/// Claimed bodies are dropped, at whichever kill point the worker dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_death_leaves_no_body_in_the_claim_store() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let gateway = cluster.start_gateway().await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    for point in ["fetched", "outcome", "noted", "dropped", "acknowledged"] {
        let worker = cluster.start_beside("worker", "worker", &["--flows", "work"]).await;
        cluster.arm(point, "*", 2);
        oracle.post_long(&gateway, "work", 4).await;
        worker.wait_for_exit().await;
        assert!(cluster.has_fired(), "the process died before the kill point");
    }
    let worker = cluster.start_beside("worker", "worker", &["--flows", "work"]).await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default(), "{}", cluster.log("worker"));
    eventually("bodies are dropped", || async { broker.messages("BLOB").await == 0 }).await;
    assert_eq!(broker.messages("DEAD").await, 0);
    drop(worker);
}

/// A body that was stored but whose event was never submitted is garbage-collected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_death_before_submission_leaves_no_body_in_the_claim_store() {
    let cluster = Cluster::new("tests/faults/flows.toml", &["nats.claims_orphaned_after_s=3"]);
    let gateway = cluster.start().await;
    let mut oracle = Oracle::default();
    cluster.arm("claimed", "*", 2);
    oracle.post_long(&gateway, "work", 4).await;
    gateway.wait_for_exit().await;
    assert!(cluster.has_fired(), "the process died before the kill point");
    let gateway = cluster.start().await;
    let broker = Broker::open(&cluster.data()).await;
    assert!(broker.messages("BLOB").await > 0, "no body was left: there is nothing to collect");
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default(), "{}", cluster.log("all"));
    eventually("orphaned bodies are collected", || async { broker.messages("BLOB").await == 0 }).await;
}
