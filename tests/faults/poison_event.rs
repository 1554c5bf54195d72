//! Poison event: an event that kills every worker that processes it, among good ones.

use crate::broker_client::{Broker, Sent};
use crate::cluster::{Cluster, POLL_INTERVAL, Process, eventually};
use crate::oracle::{Oracle, Violations, Want};

/// Good events before the poison event, and almost as many after it.
const GOOD: usize = 100;
/// Worker deaths that one poison event may cause: three attempts, two more allowed, two when it runs alone, and one
/// together with other events.
const DEATHS: usize = 8;

async fn start(cluster: &Cluster) -> Process {
    cluster.start_beside("worker", "worker", &["--flows", "work"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_event_is_dead_lettered_and_other_events_are_done() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let gateway = cluster.start_gateway().await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&gateway, "work", GOOD).await;
    let poison = Some(Want::Failed("never_settled"));
    assert_eq!(oracle.send(&broker, "work", b"POISON".to_vec(), &[], poison).await, Sent::Accepted);
    oracle.post_until_accepted(&gateway, "work", GOOD - 1).await;
    assert_eq!(broker.waiting().await as usize, 2 * GOOD);

    let mut worker = start(&cluster).await;
    let mut deaths = 0;
    while broker.waiting().await > 0 {
        if worker.is_dead() {
            deaths += 1;
            assert!(deaths <= DEATHS, "{deaths} deaths\n{}", cluster.log("worker"));
            worker = start(&cluster).await;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    assert!(deaths >= 1, "the poison event killed no worker");
    assert_eq!(cluster.marks("died").len(), deaths, "a worker died of something else");
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default(), "{}", cluster.log("worker"));
    assert_eq!(oracle.accepted.len(), 2 * GOOD);
    eventually("the poison event is dead-lettered", || async { broker.messages("DEAD").await == 1 }).await;
    let letters = gateway.json("/v1/dead-letters").await;
    assert!(letters.to_string().contains("never_settled"), "{letters}");
}
