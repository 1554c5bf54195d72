//! Readiness of a gateway that runs apart from its workers.

use rustix::process::Signal;

use crate::cluster::{Cluster, eventually};

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
