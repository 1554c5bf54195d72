//! Processes that stand still with events in their hands, and come back when others have done their work.

use rustix::process::Signal;

use crate::oracle::{Counts, Oracle};
use crate::outside::Broker;
use crate::world::{World, eventually};

/// Events in the hands of the one that is stopped.
const HELD: usize = 20;

/// F11: a worker is stopped for longer than the broker waits; another does its work; its own results come too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_stopped_finds_its_work_done() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let gateway = world.start_gateway().await;
    let stopped = world.start_beside("stopped", "worker", &["--flows", "slow"]).await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&gateway, "slow", HELD).await;
    eventually("it holds them all", || async { stopped.metric("caudal_flow_in_flight_events").await as usize == HELD })
        .await;
    stopped.signal(Signal::STOP);
    let ended = broker.ends().await.len();
    assert!(ended < HELD, "it was stopped too late");

    let other = world.start_beside("other", "worker", &["--flows", "slow"]).await;
    eventually("the other does them", || async { broker.ends().await.len() == HELD }).await;
    stopped.signal(Signal::CONT);
    eventually("late results are refused", || async {
        stopped.metric("caudal_flow_results_refused_total").await >= 1.0
    })
    .await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Counts::default(), "{}", world.log("stopped"));
    assert!(broker.redeliveries("slow").await as usize >= HELD - ended);
    eventually("the one that was stopped has nothing left", || async {
        stopped.metric("caudal_flow_in_flight_events").await == 0.0
    })
    .await;
    oracle.post_until_accepted(&gateway, "slow", HELD).await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Counts::default());
    drop(other);
}

/// One of two gateways dies amid requests: what it accepted is answered by the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_gateway_accepted_is_answered_by_another() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let first = world.start_gateway().await;
    let second = world.start_beside("second", "gateway", &[]).await;
    let worker = world.start_beside("worker", "worker", &[]).await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&first, "work", 20).await;
    world.arm("submitted", "work", 15);
    oracle.post_digests(&second, "work", 40, 4).await;
    assert!(world.has_fired(), "it did not die amid its requests");
    second.died().await;
    assert!(oracle.nameless >= 1, "a request went without an answer");
    oracle.post_until_accepted(&first, "work", 20).await;
    assert_eq!(oracle.verdict(&first, &broker).await, Counts::default(), "{}", world.log("worker"));
    drop(worker);
}

/// The same with bodies that the stopped worker has not fetched, and that are gone when it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_stopped_misses_no_body_of_work_that_is_done() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let gateway = world.start_gateway().await;
    let stopped = world.start_beside("stopped", "worker", &["--flows", "single"]).await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_long(&gateway, "single", 8).await;
    eventually("it has begun", || async { stopped.metric("caudal_flow_in_flight_events").await >= 4.0 }).await;
    stopped.signal(Signal::STOP);
    let other = world.start_beside("other", "worker", &["--flows", "single"]).await;
    eventually("the other does the rest", || async { broker.ends().await.len() == oracle.owed.len() }).await;
    eventually("bodies are dropped", || async { broker.messages("BLOB").await == 0 }).await;
    stopped.signal(Signal::CONT);
    eventually("the one that was stopped has nothing left", || async {
        stopped.metric("caudal_flow_in_flight_events").await == 0.0
    })
    .await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Counts::default(), "{}", world.log("stopped"));
    assert!(broker.redeliveries("single").await >= 1);
    assert_eq!(broker.messages("DEAD").await, 0, "work that is done became a dead letter\n{}", world.log("stopped"));
    drop(other);
}
