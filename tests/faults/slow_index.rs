//! F23: the index stands still. Flows that do not need it go on, the others wait, nothing is lost.

use crate::oracle::{Counts, Oracle, Reply, Want, ask};
use crate::outside::Broker;
use crate::pictures::{jpeg, scene};
use crate::world::{World, eventually, form};

/// Photos of each flow.
const PHOTOS: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_stands_still_holds_up_only_those_who_need_it() {
    let world = World::new("config/petalert.toml", &[]);
    let process = world.start().await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    std::fs::write(world.folder().join("stall"), "").unwrap();
    let photo = |number| jpeg(&scene(number, 96, 72), 90);
    for number in 0..PHOTOS {
        let request = process.post(&format!("/embeddings/index/r{number}")).multipart(form("file", photo(number)));
        let (serial, replied) = (oracle.mint(), ask(request).await);
        assert!(matches!(oracle.note(serial, Want::Done, replied), Reply::Accepted(_)));
    }
    eventually("the index stands still", || async { !world.marks("stalled").is_empty() }).await;
    for number in 0..PHOTOS {
        let answer = process.post_file("/embeddings/generate", "file", photo(number)).await.unwrap();
        assert_eq!(answer.status(), 200);
        oracle.answered(&answer);
    }
    let ends = broker.ends().await;
    assert!(oracle.owed.keys().all(|id| !ends.contains_key(id)), "nothing was indexed meanwhile");
    std::fs::remove_file(world.folder().join("stall")).unwrap();
    assert_eq!(oracle.verdict(&process, &broker).await, Counts::default(), "{}", world.log("all"));
    for number in 0..PHOTOS {
        let found = process.post_file("/embeddings/search_image?limit=1", "file", photo(number)).await.unwrap();
        let found: serde_json::Value = found.json().await.unwrap();
        assert_eq!(found["matches"][0]["report_id"], format!("r{number}"), "{found}");
    }
}
