//! F14: an event that kills whoever touches it, among events that do not.

use crate::oracle::{Counts, Oracle, Want};
use crate::outside::{Broker, Sent};
use crate::world::{LOOK, Process, World, eventually};

/// Good events before the poison, and as many behind it.
const GOOD: usize = 100;
/// Deaths that one poison may cost: three attempts, two of grace, two alone, and one in whose wake they fell together.
const DEATHS: usize = 8;

async fn start(world: &World) -> Process {
    world.start_beside("worker", "worker", &["--flows", "work"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_becomes_a_dead_letter_and_its_neighbours_are_done() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let gateway = world.start_gateway().await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&gateway, "work", GOOD).await;
    let poison = Some(Want::Failed("never_settled"));
    assert_eq!(oracle.send(&broker, "work", b"POISON".to_vec(), &[], poison).await, Sent::Accepted);
    oracle.post_until_accepted(&gateway, "work", GOOD - 1).await;
    assert_eq!(broker.waiting().await as usize, 2 * GOOD);

    let mut worker = start(&world).await;
    let mut deaths = 0;
    while broker.waiting().await > 0 {
        if worker.is_dead() {
            deaths += 1;
            assert!(deaths <= DEATHS, "{deaths} deaths\n{}", world.log("worker"));
            worker = start(&world).await;
        }
        tokio::time::sleep(LOOK).await;
    }
    assert!(deaths >= 1, "the poison killed nobody");
    assert_eq!(world.marks("died").len(), deaths, "nothing else died");
    assert_eq!(oracle.verdict(&gateway, &broker).await, Counts::default(), "{}", world.log("worker"));
    assert_eq!(oracle.owed.len(), 2 * GOOD);
    eventually("the poison is kept", || async { broker.messages("DEAD").await == 1 }).await;
    let letters = gateway.json("/v1/dead-letters").await;
    assert!(letters.to_string().contains("never_settled"), "{letters}");
}
