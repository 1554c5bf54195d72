//! A flow cut in two by a durable edge, its parts worked on by two processes that die in turn.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::oracle::{Counts, Oracle};
use crate::outside::Broker;
use crate::world::{LOOK, PATIENCE, Process, World, eventually};

/// Events sent around each death.
const EVENTS: usize = 15;

/// Where to die, in which part, and the how-manieth time. The edge itself is a submission to the second part.
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

/// The two workers, each started again when it died.
struct Pair<'w> {
    world: &'w World,
    workers: [Process; 2],
}

const NAMES: [&str; 2] = ["parted", "parted--second"];

impl<'w> Pair<'w> {
    async fn start(world: &'w World) -> Self {
        let [first, second] = NAMES;
        Self { world, workers: [start(world, first).await, start(world, second).await] }
    }

    /// Waits for the death of one and starts it again.
    async fn mourn(&mut self) {
        eventually("the armed point is passed", || async { self.world.has_fired() }).await;
        let deadline = Instant::now() + PATIENCE;
        let place = loop {
            if let Some(place) = self.workers.iter_mut().position(Process::is_dead) {
                break place;
            }
            assert!(Instant::now() < deadline, "nobody died");
            tokio::time::sleep(LOOK).await;
        };
        self.workers[place] = start(self.world, NAMES[place]).await;
    }
}

/// The name of the flow means both its parts, so one worker does the first part and shares the second with the other.
async fn start(world: &World, part: &str) -> Process {
    world.start_beside(part, "worker", &["--flows", part]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_in_two_parts_survives_deaths_on_either_side_of_its_edge() {
    let world = World::new("tests/faults/edges.toml", &[]);
    let gateway = world.start_gateway().await;
    let mut pair = Pair::start(&world).await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    for (point, flow, times) in POINTS {
        world.arm(point, flow, times);
        oracle.post_until_accepted(&gateway, "parted", EVENTS).await;
        pair.mourn().await;
    }
    let counts = oracle.verdict(&gateway, &broker).await;
    assert_eq!(counts, Counts::default(), "{}\n{}", world.log(NAMES[0]), world.log(NAMES[1]));
    assert_eq!(oracle.owed.len(), POINTS.len() * EVENTS);
    for file in ["first", "second"] {
        let effects: BTreeSet<String> = world.marks(file).into_iter().collect();
        assert!(oracle.owed.keys().eq(&effects), "{} effects at stage {file}", effects.len());
    }
    let redeliveries = broker.redeliveries("parted").await + broker.redeliveries("parted--second").await;
    assert!(redeliveries >= POINTS.len() as u64 / 2, "{redeliveries} redeliveries");
    for stream in ["BLOB", "DEAD"] {
        eventually(stream, || async { broker.messages(stream).await == 0 }).await;
    }
}
