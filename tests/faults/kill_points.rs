//! F01: the process dies at a named point of each flow; what was accepted ends once, and nothing is left behind.

use std::path::PathBuf;

use futures_util::StreamExt;

use crate::oracle::{Counts, Oracle, Reply, Want, ask};
use crate::outside::Broker;
use crate::pictures::{jpeg, scene};
use crate::world::{Process, World, eventually, form};

/// Events of each flow at each point.
const EVENTS: usize = 25;
/// Requests under way at once.
const AT_ONCE: usize = 4;

/// Where to die, and the how-manieth time: amid the events. One entry of the ledger holds many events.
const POINTS: [(&str, u32); 5] = [("submitted", 9), ("fetched", 12), ("outcome", 7), ("noted", 2), ("acknowledged", 7)];

const FLOWS: [&str; 4] = ["describe", "index-photo", "look-alikes", "report"];

/// Every tenth is too long to travel inside its event.
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

/// Sends until [`EVENTS`] were accepted, the process having died once on the way; gives the one that runs then.
async fn send_past_a_death(world: &World, mut process: Process, oracle: &mut Oracle, flow: &str) -> Process {
    let target = oracle.owed.len() + EVENTS;
    let mut died = false;
    while oracle.owed.len() < target || !died {
        let missing = target.saturating_sub(oracle.owed.len()).min(AT_ONCE);
        let serials: Vec<u64> = (0..missing).map(|_| oracle.mint()).collect();
        let sent = serials.into_iter().map(|serial| send(&process, flow, serial));
        let replies: Vec<_> = futures_util::stream::iter(sent).buffer_unordered(AT_ONCE).collect().await;
        for (serial, reply) in replies {
            let reply = oracle.note(serial, Want::Done, reply);
            assert!(!matches!(reply, Reply::Refused { .. }), "{reply:?}\n{}", world.log("all"));
        }
        if missing == 0 {
            eventually("the armed point is passed", || async { world.has_fired() }).await;
        }
        if world.has_fired() && !died {
            process.died().await;
            died = true;
            process = world.start().await;
        }
    }
    process
}

/// What is the same before and after: files beside the stores, and nothing in the streams of what is under way.
struct Baseline(Vec<PathBuf>);

impl Baseline {
    fn of(world: &World) -> Self {
        Self(world.files())
    }

    async fn holds(&self, world: &World, broker: &Broker) {
        assert_eq!(broker.messages("DEAD").await, 0);
        // Also those that were stored by a process that died before it submitted their event.
        eventually("bodies are dropped", || async { broker.messages("BLOB").await == 0 }).await;
        assert_eq!(broker.waiting().await, 0);
        let new: Vec<_> = world.files().into_iter().filter(|file| !self.0.contains(file)).collect();
        assert!(new.is_empty(), "left behind: {new:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_events_survive_a_death_at_every_point_of_every_flow() {
    let mut set: Vec<String> = FLOWS.iter().map(|flow| format!("flow.{flow}.ack_wait_ms=1500")).collect();
    set.push("nats.claims_unused_s=8".into());
    let world = World::new("config/petalert.toml", &set.iter().map(String::as_str).collect::<Vec<_>>());
    let mut process = world.start().await;
    let baseline = Baseline::of(&world);
    let mut oracle = Oracle::default();
    let mut redeliveries = 0;
    for flow in FLOWS {
        let before: Vec<u64> = oracle.owed.values().map(|(serial, _)| *serial).collect();
        for (point, times) in POINTS {
            world.arm(point, if point == "noted" { "*" } else { flow }, times);
            process = send_past_a_death(&world, process, &mut oracle, flow).await;
        }
        let broker = Broker::open(&world.data()).await;
        assert_eq!(oracle.verdict(&process, &broker).await, Counts::default(), "{flow}\n{}", world.log("all"));
        redeliveries += broker.redeliveries(flow).await;
        let mut serials: Vec<u64> = oracle.owed.values().map(|(serial, _)| *serial).collect();
        serials.retain(|serial| !before.contains(serial));
        compare(&process, &mut oracle, flow, serials).await;
    }
    let broker = Broker::open(&world.data()).await;
    assert_eq!(oracle.verdict(&process, &broker).await, Counts::default(), "answers differ from an unfaulted run");
    assert_eq!(oracle.owed.len(), FLOWS.len() * POINTS.len() * EVENTS);
    assert!(redeliveries >= 20, "only {redeliveries} redeliveries: the deaths came too late");
    baseline.holds(&world, &broker).await;
    process.kill().await;
}

/// Says what an unfaulted run answers to the same photos, and looks for what was indexed.
async fn compare(process: &Process, oracle: &mut Oracle, flow: &str, serials: Vec<u64>) {
    for serial in serials {
        let (path, field) = path(flow, serial);
        match flow {
            "describe" | "look-alikes" => {
                let answer = process.post_file(&path, field, photo(serial)).await.unwrap();
                assert_eq!(answer.status(), 200);
                oracle.answered(&answer);
                let want = Want::Answer(answer.bytes().await.unwrap().to_vec());
                oracle.want(serial, want);
            }
            _ => {
                let found = process.post_file("/embeddings/search_image?limit=1", "file", photo(serial)).await.unwrap();
                oracle.answered(&found);
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

/// Bodies that travel beside their events are dropped, whichever moment the worker dies at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_worker_leaves_no_body_behind() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let gateway = world.start_gateway().await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    for point in ["fetched", "outcome", "noted", "dropped", "acknowledged"] {
        let worker = world.start_beside("worker", "worker", &["--flows", "work"]).await;
        world.arm(point, "*", 2);
        oracle.post_long(&gateway, "work", 4).await;
        worker.died().await;
        assert!(world.has_fired(), "it died of something else");
    }
    let worker = world.start_beside("worker", "worker", &["--flows", "work"]).await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Counts::default(), "{}", world.log("worker"));
    eventually("bodies are dropped", || async { broker.messages("BLOB").await == 0 }).await;
    assert_eq!(broker.messages("DEAD").await, 0);
    drop(worker);
}

/// A body whose event never came goes when no event can come any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_before_its_event_leaves_no_body_behind() {
    let world = World::new("tests/faults/flows.toml", &["nats.claims_unused_s=3"]);
    let gateway = world.start().await;
    let mut oracle = Oracle::default();
    world.arm("claimed", "*", 2);
    oracle.post_long(&gateway, "work", 4).await;
    gateway.died().await;
    assert!(world.has_fired(), "it died of something else");
    let gateway = world.start().await;
    let broker = Broker::open(&world.data()).await;
    assert!(broker.messages("BLOB").await > 0, "it left nothing behind");
    assert_eq!(oracle.verdict(&gateway, &broker).await, Counts::default(), "{}", world.log("all"));
    eventually("the bodies go", || async { broker.messages("BLOB").await == 0 }).await;
}
