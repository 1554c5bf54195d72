//! The Qdrant index: the conformance suite on a double of the server, and the client's dealings with a server.

use std::path::Path;
use std::sync::Arc;

use connectors::index::{self, IndexSpec};
use pipeline::spec::Secret;
use pipeline::{IndexError, Nearest, VectorIndex};
use qdrant_client::qdrant::UpdateStatus;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::conformance::{index_conformance, nearest, point, points, space};
use crate::support::qdrant_double::QdrantDouble;

index_conformance!(open);

/// As the suite opens it: a client of a double that stores its points in `folder`.
async fn open(folder: &Path) -> (Arc<dyn VectorIndex>, QdrantDouble) {
    let double = QdrantDouble::start(folder).await;
    let key = folder.join("key");
    std::fs::write(&key, "secret\n").unwrap();
    let spec = IndexSpec { url: Some(double.url.clone()), api_key: Some(Secret::File(key)), ..IndexSpec::default() };
    let index = index::open(&spec, folder).unwrap();
    (index, double)
}

#[tokio::test]
async fn a_large_write_is_split_into_requests() {
    let directory = tempfile::tempdir().unwrap();
    let (index, double) = open(directory.path()).await;
    index.upsert("photos", &space(), points(0..600)).await.unwrap();
    assert_eq!(*double.state.writes.lock().unwrap(), [256, 256, 88]);
}

#[tokio::test]
async fn the_api_key_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let (index, double) = open(directory.path()).await;
    index.upsert("photos", &space(), points(0..1)).await.unwrap();
    assert_eq!(double.state.last_key.lock().unwrap().as_deref(), Some("secret"));
}

#[tokio::test]
async fn a_write_that_the_server_did_not_complete_fails() {
    let directory = tempfile::tempdir().unwrap();
    let (index, double) = open(directory.path()).await;
    index.upsert("photos", &space(), points(0..1)).await.unwrap();
    for status in [UpdateStatus::Acknowledged, UpdateStatus::WaitTimeout, UpdateStatus::ClockRejected] {
        *double.state.write_status.lock().unwrap() = Some(status);
        let outcome = index.upsert("photos", &space(), points(1..2)).await;
        assert!(matches!(outcome, Err(IndexError::Unavailable(_))), "{status:?}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_server_is_unavailable_with_its_message() {
    let directory = tempfile::tempdir().unwrap();
    let (index, double) = open(directory.path()).await;
    index.upsert("photos", &space(), points(0..1)).await.unwrap();
    let mut metadata = MetadataMap::new();
    metadata.insert("retry-after", "17".parse().unwrap());
    for (status, words) in [
        (Status::with_metadata(tonic::Code::ResourceExhausted, "rate", metadata), "17 s"),
        (Status::resource_exhausted("quota"), "quota"),
        (Status::unavailable("starting"), "starting"),
    ] {
        *double.state.refuse.lock().unwrap() = Some(status);
        for refused in [
            index.upsert("photos", &space(), points(1..2)).await,
            index.search("photos", &space(), Nearest::to(&point(0).values, 1)).await.map(|_| ()),
        ] {
            let Err(IndexError::Unavailable(cause)) = refused else { panic!("{refused:?}") };
            assert!(cause.to_string().contains(words), "{cause}");
        }
        assert!(index.ready().await.is_err());
    }
}

#[tokio::test]
async fn a_collection_deleted_on_the_server_is_created_again() {
    let directory = tempfile::tempdir().unwrap();
    let (index, double) = open(directory.path()).await;
    index.upsert("photos", &space(), points(0..1)).await.unwrap();
    double.delete("photos");
    assert!(nearest(&*index, 0, 1).await.is_empty());
    index.upsert("photos", &space(), points(1..2)).await.unwrap();
    double.delete("photos");
    // The write that finds it missing fails once; its repeat creates the collection.
    assert!(index.upsert("photos", &space(), points(2..3)).await.is_err());
    index.upsert("photos", &space(), points(2..3)).await.unwrap();
}

#[tokio::test]
async fn a_server_without_collection_metadata_is_named_as_the_cause() {
    let directory = tempfile::tempdir().unwrap();
    let (index, double) = open(directory.path()).await;
    *double.state.without_metadata.lock().unwrap() = true;
    let refused = index.upsert("photos", &space(), points(0..1)).await;
    let Err(IndexError::Unavailable(cause)) = refused else { panic!("{refused:?}") };
    assert!(cause.to_string().contains("1.16"), "{cause}");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let spec = IndexSpec { url: Some(url), ..IndexSpec::default() };
    let index = index::open(&spec, Path::new("")).unwrap();
    assert!(matches!(index.upsert("photos", &space(), points(0..1)).await, Err(IndexError::Unavailable(_))));
    assert!(index.ready().await.is_err());
}
