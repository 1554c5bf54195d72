//! The vector index is out of reach, while its worker is stopped, killed and started again: what was accepted waits, and
//! is indexed once the index is back.

use std::path::PathBuf;

use rustix::process::Signal;

use crate::broker_client::Broker;
use crate::cluster::{Cluster, Process, eventually, form};
use crate::oracle::{Oracle, Reply, Violations, Want, ask};
use crate::test_images::{jpeg, scene};

/// Photos accepted before the outage is noticed, and as many after each death.
const PHOTOS: u32 = 10;

async fn post_photos(oracle: &mut Oracle, process: &Process, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let photo = form("file", jpeg(&scene(number, 96, 72), 90));
        let request = process.post(&format!("/embeddings/index/r{number}")).multipart(photo);
        let (serial, replied) = (oracle.mint(), ask(request).await);
        assert!(matches!(oracle.note(serial, Want::Done, replied), Reply::Accepted(_)));
    }
}

/// Waits until the worker that has just been started meets the outage.
async fn wait_for_refusal(cluster: &Cluster, before: usize) {
    eventually("the index refuses", || async { cluster.marks("refused").len() > before }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_outage_with_sigterm_and_sigkill_in_between_fails_nothing() {
    // The default is to wait for ever; an outage that ends in dead letters is asked for by name.
    let cluster = Cluster::new("config/petalert.toml", &[]);
    let away: PathBuf = cluster.folder().join("away");
    std::fs::write(&away, "").unwrap();
    let mut oracle = Oracle::default();

    let process = cluster.start().await;
    post_photos(&mut oracle, &process, 0..PHOTOS).await;
    wait_for_refusal(&cluster, 0).await;
    process.signal(Signal::TERM);
    assert!(process.wait_for_exit().await.success(), "{}", cluster.log("all"));

    let before = cluster.marks("refused").len();
    let process = cluster.start().await;
    post_photos(&mut oracle, &process, PHOTOS..2 * PHOTOS).await;
    wait_for_refusal(&cluster, before).await;
    process.kill().await;

    let before = cluster.marks("refused").len();
    let process = cluster.start().await;
    post_photos(&mut oracle, &process, 2 * PHOTOS..3 * PHOTOS).await;
    wait_for_refusal(&cluster, before).await;
    let broker = Broker::open(&cluster.data()).await;
    let ends = broker.ends().await;
    assert!(oracle.accepted.keys().all(|id| !ends.contains_key(id)), "an event ended while the index was away");

    std::fs::remove_file(away).unwrap();
    assert_eq!(oracle.verdict(&process, &broker).await, Violations::default(), "{}", cluster.log("all"));
    assert_eq!(broker.messages("DEAD").await, 0, "{}", cluster.log("all"));
    for number in 0..3 * PHOTOS {
        let photo = jpeg(&scene(number, 96, 72), 90);
        let found = process.post_file("/embeddings/search_image?limit=1", "file", photo).await.unwrap();
        let found: serde_json::Value = found.json().await.unwrap();
        assert_eq!(found["matches"][0]["report_id"], format!("r{number}"), "{found}");
    }
}
