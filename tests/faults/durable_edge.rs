//! A flow cut in two by a durable edge, with a worker process for each part; the workers die in turn.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::broker_client::Broker;
use crate::cluster::{Cluster, POLL_INTERVAL, Process, TIMEOUT, eventually};
use crate::oracle::{Oracle, Violations};

/// Events sent per death.
const EVENTS: usize = 15;

/// Where a worker dies: the kill point, the part of the flow, and on which pass. The edge itself is a submission to the
/// second part.
const POINTS: [(&str, &str, u32); 9] = [
    ("fetched", "parted", 5),
    ("first", "parted", 5),
    ("submitted", "parted--second", 5),
    ("acknowledged", "parted", 5),
    ("fetched", "parted--second", 5),
    ("second", "parted--second", 5),
    ("outcome", "parted", 5),
    ("noted", "*", 3),
    ("acknowledged", "parted--second", 5),
];

/// The two workers.
struct Workers<'w> {
    cluster: &'w Cluster,
    processes: [Process; 2],
}

const NAMES: [&str; 2] = ["parted", "parted--second"];

impl<'w> Workers<'w> {
    async fn start(cluster: &'w Cluster) -> Self {
        let [first, second] = NAMES;
        Self { cluster, processes: [start(cluster, first).await, start(cluster, second).await] }
    }

    /// Waits until one has died, and restarts it.
    async fn restart_dead(&mut self) {
        eventually("the armed point is passed", || async { self.cluster.has_fired() }).await;
        let deadline = Instant::now() + TIMEOUT;
        let index = loop {
            if let Some(index) = self.processes.iter_mut().position(Process::is_dead) {
                break index;
            }
            assert!(Instant::now() < deadline, "no worker died");
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        self.processes[index] = start(self.cluster, NAMES[index]).await;
    }
}

/// Starts a worker. The name of the flow selects both parts, so the first worker runs the first part and shares the
/// second.
async fn start(cluster: &Cluster, part: &str) -> Process {
    cluster.start_beside(part, "worker", &["--flows", part]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_cut_by_a_durable_edge_survives_worker_deaths_on_both_sides() {
    let cluster = Cluster::new("tests/faults/durable_edge.toml", &[]);
    let gateway = cluster.start_gateway().await;
    let mut workers = Workers::start(&cluster).await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    for (point, flow, times) in POINTS {
        cluster.arm(point, flow, times);
        oracle.post_until_accepted(&gateway, "parted", EVENTS).await;
        workers.restart_dead().await;
    }
    let violations = oracle.verdict(&gateway, &broker).await;
    assert_eq!(violations, Violations::default(), "{}\n{}", cluster.log(NAMES[0]), cluster.log(NAMES[1]));
    assert_eq!(oracle.accepted.len(), POINTS.len() * EVENTS);
    for file in ["first", "second"] {
        let effects: BTreeSet<String> = cluster.marks(file).into_iter().collect();
        assert!(oracle.accepted.keys().eq(&effects), "{} effects at stage {file}", effects.len());
    }
    let redeliveries = broker.redeliveries("parted").await + broker.redeliveries("parted--second").await;
    assert!(redeliveries >= POINTS.len() as u64 / 2, "{redeliveries} redeliveries");
    for stream in ["BLOB", "DEAD"] {
        eventually(stream, || async { broker.messages(stream).await == 0 }).await;
    }
}
