//! Paused processes (SIGSTOP) with events in flight, which resume after another process has done their work; and a
//! gateway that dies in the middle of requests.

use rustix::process::Signal;

use crate::broker_client::Broker;
use crate::cluster::{Cluster, eventually};
use crate::oracle::{Oracle, Violations};

/// Events in flight in the paused worker.
const IN_FLIGHT: usize = 20;

/// A worker is paused for longer than `ack_wait_ms`, another does its work, and its own late results are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_results_of_a_paused_worker_are_refused() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let gateway = cluster.start_gateway().await;
    let paused = cluster.start_beside("paused", "worker", &["--flows", "slow"]).await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&gateway, "slow", IN_FLIGHT).await;
    eventually("the worker has all events in flight", || async {
        paused.metric("caudal_flow_in_flight_events").await as usize == IN_FLIGHT
    })
    .await;
    paused.signal(Signal::STOP);
    let ended = broker.ends().await.len();
    assert!(ended < IN_FLIGHT, "the worker was paused too late");

    let other = cluster.start_beside("other", "worker", &["--flows", "slow"]).await;
    eventually("the other worker does them", || async { broker.ends().await.len() == IN_FLIGHT }).await;
    paused.signal(Signal::CONT);
    eventually("late results are refused", || async {
        paused.metric("caudal_flow_results_refused_total").await >= 1.0
    })
    .await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default(), "{}", cluster.log("paused"));
    assert!(broker.redeliveries("slow").await as usize >= IN_FLIGHT - ended);
    eventually("the resumed worker has no event in flight", || async {
        paused.metric("caudal_flow_in_flight_events").await == 0.0
    })
    .await;
    oracle.post_until_accepted(&gateway, "slow", IN_FLIGHT).await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default());
    drop(other);
}

/// One of two gateways dies in the middle of requests: the other answers what it accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_accepted_by_a_dead_gateway_are_answered_by_another() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let first = cluster.start_gateway().await;
    let second = cluster.start_beside("second", "gateway", &[]).await;
    let worker = cluster.start_beside("worker", "worker", &[]).await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&first, "work", 20).await;
    cluster.arm("submitted", "work", 15);
    oracle.post_digests(&second, "work", 40, 4).await;
    assert!(cluster.has_fired(), "the gateway did not die");
    second.wait_for_exit().await;
    assert!(oracle.unanswered >= 1, "every request was answered");
    oracle.post_until_accepted(&first, "work", 20).await;
    assert_eq!(oracle.verdict(&first, &broker).await, Violations::default(), "{}", cluster.log("worker"));
    drop(worker);
}

/// As the first test, with claimed bodies that the paused worker has not fetched and that are gone when it resumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_worker_does_not_dead_letter_finished_work_whose_body_is_gone() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let gateway = cluster.start_gateway().await;
    let paused = cluster.start_beside("paused", "worker", &["--flows", "single"]).await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_long(&gateway, "single", 8).await;
    eventually("the worker has started", || async { paused.metric("caudal_flow_in_flight_events").await >= 4.0 }).await;
    paused.signal(Signal::STOP);
    let other = cluster.start_beside("other", "worker", &["--flows", "single"]).await;
    eventually("the other worker does the rest", || async { broker.ends().await.len() == oracle.accepted.len() }).await;
    eventually("bodies are dropped", || async { broker.messages("BLOB").await == 0 }).await;
    paused.signal(Signal::CONT);
    eventually("the resumed worker has no event in flight", || async {
        paused.metric("caudal_flow_in_flight_events").await == 0.0
    })
    .await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default(), "{}", cluster.log("paused"));
    assert!(broker.redeliveries("single").await >= 1);
    assert_eq!(broker.messages("DEAD").await, 0, "finished work was dead-lettered\n{}", cluster.log("paused"));
    drop(other);
}
