//! F17: work that takes longer than the broker waits for a sign of life is delivered once all the same.

use crate::oracle::{Counts, Oracle};
use crate::outside::Broker;
use crate::world::World;

/// Events, each of which takes 1.8 s where the broker waits 1 s.
const EVENTS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_work_is_kept_alive_and_not_delivered_again() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let process = world.start().await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&process, "slow", EVENTS).await;
    assert_eq!(oracle.verdict(&process, &broker).await, Counts::default(), "{}", world.log("all"));
    let (deliveries, _) = broker.deliveries("slow").await;
    assert!(deliveries as usize <= EVENTS + EVENTS / 20, "{deliveries} deliveries of {EVENTS} events");
    assert_eq!(world.marks("slow").len(), deliveries as usize);
}
