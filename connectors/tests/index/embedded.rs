//! The embedded index: the conformance suite, and what only it does (reopening, locking, disk limits, rebuilds).

use std::path::Path;
use std::sync::Arc;

use connectors::index::{self, EmbeddedIndex, Limits};
use pipeline::{IndexError, Nearest, Point, VectorIndex};

use crate::conformance::{id, index_conformance, is_other_model, nearest, other_space, point, points, space, spec};

index_conformance!(open);

/// As the suite opens it; nothing but the folder must outlive it.
async fn open(folder: &Path) -> (Arc<dyn VectorIndex>, ()) {
    (Arc::new(open_at(folder)), ())
}

/// Without a limit of free space, so that the tests do not depend on the machine's disk.
fn open_at(directory: &Path) -> EmbeddedIndex {
    EmbeddedIndex::open(directory, Limits { free_bytes: 0, ..Limits::default() }).unwrap()
}

#[tokio::test]
async fn the_section_opens_it_in_the_data_folder() {
    let data_dir = tempfile::tempdir().unwrap();
    let index = index::open(&spec(serde_json::json!({"kind": "embedded"})), data_dir.path()).unwrap();
    assert!(data_dir.path().join("index/lock").is_file());
    index.close().await;
}

#[tokio::test]
async fn a_closed_index_refuses_everything() {
    let directory = tempfile::tempdir().unwrap();
    let index = open_at(directory.path());
    index.upsert("photos", &space(), points(0..50)).await.unwrap();
    index.close().await;
    assert!(index.upsert("photos", &space(), points(50..51)).await.is_err());
    assert!(index.search("photos", &space(), Nearest::to(&point(0).values, 1)).await.is_err());
    assert!(index.ready().await.is_err());
}

/// An index that stored points 0 to 49, was closed and opened again.
async fn reopened(directory: &Path) -> EmbeddedIndex {
    let index = open_at(directory);
    index.upsert("photos", &space(), points(0..50)).await.unwrap();
    index.close().await;
    drop(index);
    open_at(directory)
}

#[tokio::test]
async fn a_reopened_index_has_its_points() {
    let directory = tempfile::tempdir().unwrap();
    let again = reopened(directory.path()).await;
    assert_eq!(nearest(&again, 0, 100).await.len(), 50);
    again.close().await;
}

#[tokio::test]
async fn a_reopened_collection_still_refuses_another_model() {
    let directory = tempfile::tempdir().unwrap();
    let again = reopened(directory.path()).await;
    assert!(is_other_model(&again.upsert("photos", &other_space(), points(0..1)).await));
    again.close().await;
}

#[tokio::test]
async fn a_write_after_reopening_replaces_an_older_one() {
    let directory = tempfile::tempdir().unwrap();
    let again = reopened(directory.path()).await;
    again.upsert("photos", &space(), vec![Point { id: id(3), ..point(300) }]).await.unwrap();
    assert_eq!(nearest(&again, 300, 1).await[0].id, id(3));
    again.close().await;
}

#[test]
fn two_processes_cannot_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open_at(directory.path());
    let second = EmbeddedIndex::open(directory.path(), Limits::default()).map(|_| ()).unwrap_err();
    assert!(second.to_string().contains("another process"), "{second}");
}

#[tokio::test]
async fn nothing_is_written_when_the_disk_is_nearly_full() {
    let directory = tempfile::tempdir().unwrap();
    let index = EmbeddedIndex::open(directory.path(), Limits { free_bytes: u64::MAX, ..Limits::default() }).unwrap();
    let refused = index.upsert("photos", &space(), points(0..1)).await;
    assert!(matches!(refused, Err(IndexError::Unavailable(_))));
    assert!(index.ready().await.is_err());
    assert!(!directory.path().join("photos").exists());
    index.close().await;
}

#[tokio::test]
async fn a_log_much_larger_than_its_points_is_replaced_by_a_rebuild() {
    let directory = tempfile::tempdir().unwrap();
    let index = EmbeddedIndex::open(directory.path(), Limits { free_bytes: 0, log_bytes: 9 << 20 }).unwrap();
    // The same thousand points over and over: the log grows, the points do not.
    let mut rebuilt = false;
    for _ in 0..60 {
        index.upsert("photos", &space(), points(0..1000)).await.unwrap();
        rebuilt |= directory.path().join("photos/shard-1").exists();
    }
    assert!(rebuilt, "the log has {} bytes", index.log_bytes("photos"));
    assert!(index.log_bytes("photos") <= 25 << 20);
    assert_eq!(nearest(&index, 0, 5000).await.len(), 1000);
    index.upsert("photos", &space(), vec![Point { id: id(3), ..point(2000) }]).await.unwrap();
    assert_eq!(nearest(&index, 2000, 1).await[0].id, id(3));
    index.close().await;
    drop(index);
    let again = open_at(directory.path());
    assert_eq!(nearest(&again, 0, 5000).await.len(), 1000);
    assert_eq!(nearest(&again, 2000, 1).await[0].id, id(3));
    again.close().await;
}
