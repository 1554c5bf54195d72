//! The vector index stalls: flows that do not use it continue, the others wait, no event is lost.

use crate::broker_client::Broker;
use crate::cluster::{Cluster, eventually, form};
use crate::oracle::{Oracle, Reply, Violations, Want, ask};
use crate::test_images::{jpeg, scene};

/// Photos per flow.
const PHOTOS: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_index_blocks_only_flows_that_use_it() {
    let cluster = Cluster::new("config/petalert.toml", &[]);
    let process = cluster.start().await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    std::fs::write(cluster.folder().join("stall"), "").unwrap();
    let photo = |number| jpeg(&scene(number, 96, 72), 90);
    for number in 0..PHOTOS {
        let request = process.post(&format!("/embeddings/index/r{number}")).multipart(form("file", photo(number)));
        let (serial, replied) = (oracle.mint(), ask(request).await);
        assert!(matches!(oracle.note(serial, Want::Done, replied), Reply::Accepted(_)));
    }
    eventually("the index has stalled", || async { !cluster.marks("stalled").is_empty() }).await;
    for number in 0..PHOTOS {
        let answer = process.post_file("/embeddings/generate", "file", photo(number)).await.unwrap();
        assert_eq!(answer.status(), 200);
        oracle.note_answer(&answer);
    }
    let ends = broker.ends().await;
    assert!(oracle.accepted.keys().all(|id| !ends.contains_key(id)), "an event ended while the index was stalled");
    std::fs::remove_file(cluster.folder().join("stall")).unwrap();
    assert_eq!(oracle.verdict(&process, &broker).await, Violations::default(), "{}", cluster.log("all"));
    for number in 0..PHOTOS {
        let found = process.post_file("/embeddings/search_image?limit=1", "file", photo(number)).await.unwrap();
        let found: serde_json::Value = found.json().await.unwrap();
        assert_eq!(found["matches"][0]["report_id"], format!("r{number}"), "{found}");
    }
}
