//! A gateway that runs apart from its workers: its readiness, and the death of one worker of two.

use futures_util::{StreamExt, stream};
use rustix::process::Signal;

use crate::broker_client::Broker;
use crate::cluster::{Cluster, Process, eventually};

/// Workers that are killed one after another.
const DEATHS: u32 = 4;
/// Requests for each of them.
const REQUESTS_PER_DEATH: u32 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_ready_once_there_is_a_worker() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let gateway = cluster.start_gateway().await;
    let (status, text) = gateway.ready().await;
    assert!(status == 503 && text.contains("not ready: workers"), "{status} {text}");
    let worker = cluster.start_beside("worker", "worker", &["--flows", "work"]).await;
    eventually("the gateway is ready", || async { gateway.ready().await.0 == 200 }).await;
    worker.signal(Signal::TERM);
    assert!(worker.wait_for_exit().await.success(), "{}", cluster.log("worker"));
    eventually("the gateway is not ready", || async { gateway.ready().await.0 == 503 }).await;
}

/// Clients wait for their answers while one worker after another is killed: each gets its answer, and what the dead one
/// had in flight is done by the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_that_waits_is_answered_although_workers_are_killed() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let gateway = cluster.start_gateway().await;
    let broker = Broker::open(&cluster.data()).await;
    let start = async |name: &str| cluster.start_beside(name, "worker", &["--flows", "work"]).await;
    let mut workers = [start("one").await, start("two").await];
    for _ in 0..DEATHS {
        cluster.arm("work", "work", REQUESTS_PER_DEATH / 2);
        let ask = async |number| {
            let response = gateway.post("/v1/flows/work").body(format!("body {number}")).send().await.unwrap();
            assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        };
        stream::iter(0..REQUESTS_PER_DEATH).for_each_concurrent(16, ask).await;
        assert!(cluster.has_fired(), "no worker died");
        eventually("the worker has died", || std::future::ready(workers.iter_mut().any(Process::is_dead))).await;
        let dead = workers.iter_mut().position(Process::is_dead).unwrap();
        workers[dead] = start(["one", "two"][dead]).await;
    }
    assert!(broker.redeliveries("work").await >= u64::from(DEATHS), "nothing was in flight where workers died");
    eventually("the queue is empty", || async { broker.waiting().await == 0 }).await;
    let ends = broker.ends().await;
    assert_eq!(ends.len(), (DEATHS * REQUESTS_PER_DEATH) as usize);
    assert!(ends.values().all(|count| *count == 1), "{ends:?}");
}
