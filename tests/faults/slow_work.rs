//! Slow work: an event that takes longer than `ack_wait_ms` is kept alive and not redelivered.

use crate::broker_client::Broker;
use crate::cluster::Cluster;
use crate::oracle::{Oracle, Violations};

/// Number of events; each takes 1.8 s, and `ack_wait_ms` is 1 s.
const EVENTS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_work_extends_its_ack_deadline_and_is_not_redelivered() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let process = cluster.start().await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&process, "slow", EVENTS).await;
    assert_eq!(oracle.verdict(&process, &broker).await, Violations::default(), "{}", cluster.log("all"));
    let (deliveries, _) = broker.deliveries("slow").await;
    assert!(deliveries as usize <= EVENTS + EVENTS / 20, "{deliveries} deliveries of {EVENTS} events");
    assert_eq!(cluster.marks("slow").len(), deliveries as usize);
}
