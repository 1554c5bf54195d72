//! Every property of the index trait, on the embedded index and on a double of the server.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and is told things by the environment"
)]

mod support;

use std::sync::Arc;

use connectors::index::{self, EmbeddedIndex, IndexSpec, Limits};
use pipeline::spec::Secret;
use pipeline::{Hit, IndexError, Nearest, Point, Space, TENANT_PARAM, VectorIndex};
use qdrant_client::qdrant::UpdateStatus;
use support::Noise;
use support::qdrant_double::QdrantDouble;
use tonic::Status;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

const DIM: usize = 32;

fn space() -> Space {
    Space { fingerprint: "model-a".into(), dim: DIM }
}

fn id(number: u64) -> Uuid {
    Uuid::from_u64_pair(7, number)
}

/// The `number`-th point: its vector is its own, its field says which one it is.
fn point(number: u64) -> Point {
    let fields = serde_json::Map::from_iter([("report_id".to_string(), format!("r{number}").into())]);
    Point { id: id(number), values: Noise::new(number).unit(DIM), fields }
}

fn points(numbers: std::ops::Range<u64>) -> Vec<Point> {
    numbers.map(point).collect()
}

async fn nearest(index: &dyn VectorIndex, number: u64, limit: usize) -> Vec<Hit> {
    index.search("photos", &space(), Nearest::to(&point(number).values, limit)).await.unwrap()
}

fn is_other_model(outcome: Result<(), IndexError>) -> bool {
    matches!(outcome, Err(IndexError::OtherModel { holds, .. }) if holds == ("model-a".to_string(), DIM))
}

async fn what_was_stored_is_found_best_first(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..20)).await.unwrap();
    let found = nearest(index, 5, 4).await;
    assert_eq!(found.len(), 4);
    assert_eq!(found[0].id, id(5));
    assert_eq!(found[0].fields["report_id"], "r5");
    assert!((found[0].score - 1.0).abs() < 1e-4);
    assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
    let mut exact: Vec<f32> =
        points(0..20).iter().map(|other| support::cosine(&point(5).values, &other.values)).collect();
    exact.sort_by(|a, b| b.total_cmp(a));
    assert!(found.iter().zip(exact).all(|(hit, score)| (hit.score - score).abs() < 1e-4));
}

async fn the_same_id_replaces(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..3)).await.unwrap();
    let mut moved = Point { id: id(1), ..point(100) };
    moved.fields.insert("more".into(), serde_json::json!({"nested": [1, 2.5, null, true]}));
    let fields = moved.fields.clone();
    index.upsert("photos", &space(), vec![point(2), moved]).await.unwrap();
    let found = nearest(index, 100, 10).await;
    assert_eq!(found.len(), 3);
    assert_eq!((found[0].id, &found[0].fields), (id(1), &fields));
}

async fn of_one_id_twice_in_a_batch_the_last_stays(index: &dyn VectorIndex) {
    let twice = vec![point(1), Point { id: id(1), ..point(2) }];
    index.upsert("photos", &space(), twice).await.unwrap();
    let found = nearest(index, 2, 10).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].fields["report_id"], "r2");
}

async fn another_model_is_refused_both_ways_and_nothing_is_written(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..2)).await.unwrap();
    let other = Space { fingerprint: "model-b".into(), dim: DIM };
    assert!(is_other_model(index.upsert("photos", &other, points(5..6)).await));
    assert!(is_other_model(index.search("photos", &other, Nearest::to(&point(0).values, 3)).await.map(|_| ())));
    let longer = Space { fingerprint: "model-a".into(), dim: DIM + 1 };
    let point_of_longer = Point { values: vec![0.5; DIM + 1], ..point(7) };
    assert!(is_other_model(index.upsert("photos", &longer, vec![point_of_longer]).await));
    assert_eq!(nearest(index, 0, 10).await.len(), 2);
    // In a collection of its own it is welcome.
    index.upsert("others", &other, points(5..6)).await.unwrap();
    assert_eq!(index.search("others", &other, Nearest::to(&point(5).values, 3)).await.unwrap().len(), 1);
}

async fn what_was_never_stored_is_empty(index: &dyn VectorIndex) {
    assert!(nearest(index, 1, 10).await.is_empty());
    index.upsert("photos", &space(), points(0..2)).await.unwrap();
    assert!(nearest(index, 1, 0).await.is_empty());
    assert_eq!(nearest(index, 1, 10).await.len(), 2);
}

async fn wrong_lengths_wrong_values_and_wrong_names_are_refused(index: &dyn VectorIndex) {
    let short = Point { values: vec![1.0; 3], ..point(0) };
    let mut broken = point(0);
    broken.values[3] = f32::NAN;
    for bad in [short, broken] {
        let refused = index.upsert("photos", &space(), vec![point(1), bad]).await;
        assert!(matches!(refused, Err(IndexError::Unavailable(_))), "{refused:?}");
    }
    assert!(index.search("photos", &space(), Nearest::to(&[1.0; 3], 3)).await.is_err());
    assert!(index.search("photos", &space(), Nearest::to(&[f32::INFINITY; DIM], 3)).await.is_err());
    for name in ["", "..", "a/b", "a.b", &"x".repeat(65)] {
        assert!(index.upsert(name, &space(), points(0..1)).await.is_err(), "{name:?}");
        assert!(index.search(name, &space(), Nearest::to(&point(0).values, 1)).await.is_err(), "{name:?}");
    }
    assert!(nearest(index, 1, 10).await.is_empty());
}

async fn a_thousand_points_at_once_are_each_found(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..1000)).await.unwrap();
    for number in (0..1000).step_by(37) {
        assert_eq!(nearest(index, number, 1).await[0].id, id(number));
    }
    assert_eq!(nearest(index, 0, 2000).await.len(), 1000);
}

async fn many_writers_and_searchers_get_along(index: &dyn VectorIndex) {
    let writers = (0..32u64).map(|writer| async move {
        for batch in 0..4 {
            let first = writer * 20 + batch * 5;
            index.upsert("photos", &space(), points(first..first + 5)).await.unwrap();
            // Read your writes.
            assert_eq!(nearest(index, first, 1).await[0].id, id(first));
        }
    });
    futures(writers).await;
    assert_eq!(nearest(index, 0, 2000).await.len(), 640);
}

/// Point `number` of a tenant, `None` for nobody's.
fn point_of(tenant: Option<&str>, number: u64) -> Point {
    let mut point = point(number);
    point.fields.extend(tenant.map(|tenant| (TENANT_PARAM.to_owned(), tenant.into())));
    point
}

async fn a_tenant_finds_its_own_points_alone(index: &dyn VectorIndex) {
    let found = async |tenant: Option<&str>| -> Vec<Uuid> {
        let vector = point(7).values;
        let nearest = Nearest { vector: &vector, limit: 10, tenant };
        index.search("photos", &space(), nearest).await.unwrap().into_iter().map(|hit| hit.id).collect()
    };
    // As a service leaves them that asks nobody who they are.
    index.upsert("photos", &space(), points(0..40)).await.unwrap();
    assert!(found(Some("acme")).await.is_empty());
    for (tenant, number) in [("acme", 100), ("acme", 101), ("other", 102), ("o'ther\"*", 103)] {
        index.upsert("photos", &space(), vec![point_of(Some(tenant), number)]).await.unwrap();
    }
    let mut of_acme = found(Some("acme")).await;
    of_acme.sort();
    assert_eq!(of_acme, [id(100), id(101)]);
    assert_eq!(found(Some("other")).await, [id(102)]);
    assert_eq!(found(Some("o'ther\"*")).await, [id(103)]);
    for stranger in ["", "acm", "ACME", "acme ", "*"] {
        assert!(found(Some(stranger)).await.is_empty(), "{stranger:?}");
    }
    // The nearest of them is among those of nobody: none of a tenant takes the place of one.
    let of_nobody = found(None).await;
    assert_eq!((of_nobody.len(), of_nobody[0]), (10, id(7)));
    assert!(of_nobody.iter().all(|found| (0..40).any(|number| *found == id(number))));
}

async fn it_is_ready(index: &dyn VectorIndex) {
    index.ready().await.unwrap();
    index.upsert("photos", &space(), Vec::new()).await.unwrap();
    index.ready().await.unwrap();
}

/// Polls all of them to their end, turn by turn.
async fn futures(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        running.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

macro_rules! on_both {
    ($($property:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $property() {
                let directory = tempfile::tempdir().unwrap();
                let index = super::embedded(directory.path());
                super::$property(&index).await;
                pipeline::VectorIndex::close(&index).await;
            })+
        }
        mod server {
            $(#[tokio::test]
            async fn $property() {
                let directory = tempfile::tempdir().unwrap();
                let (_double, index) = super::server(directory.path()).await;
                super::$property(&*index).await;
                index.close().await;
            })+
        }
    };
}

on_both![
    what_was_stored_is_found_best_first,
    the_same_id_replaces,
    of_one_id_twice_in_a_batch_the_last_stays,
    another_model_is_refused_both_ways_and_nothing_is_written,
    what_was_never_stored_is_empty,
    wrong_lengths_wrong_values_and_wrong_names_are_refused,
    a_thousand_points_at_once_are_each_found,
    many_writers_and_searchers_get_along,
    a_tenant_finds_its_own_points_alone,
    it_is_ready,
];

fn embedded(directory: &std::path::Path) -> EmbeddedIndex {
    EmbeddedIndex::open(directory, Limits { free_bytes: 0, ..Limits::default() }).unwrap()
}

async fn server(directory: &std::path::Path) -> (QdrantDouble, Arc<dyn VectorIndex>) {
    let double = QdrantDouble::start(directory).await;
    let key = directory.join("key");
    std::fs::write(&key, "secret\n").unwrap();
    let spec = IndexSpec { url: Some(double.url.clone()), api_key: Some(Secret::File(key)), timeout_ms: None };
    let index = index::open(&spec, directory).unwrap();
    (double, index)
}

#[tokio::test]
async fn what_was_closed_is_there_again_and_answers_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let index = embedded(directory.path());
    index.upsert("photos", &space(), points(0..50)).await.unwrap();
    index.close().await;
    index.close().await;
    assert!(index.upsert("photos", &space(), points(50..51)).await.is_err());
    assert!(index.search("photos", &space(), Nearest::to(&point(0).values, 1)).await.is_err());
    assert!(index.ready().await.is_err());
    drop(index);
    let again = embedded(directory.path());
    assert_eq!(nearest(&again, 0, 100).await.len(), 50);
    let other = Space { fingerprint: "model-b".into(), dim: DIM };
    assert!(is_other_model(again.upsert("photos", &other, points(0..1)).await));
    // Later writes are newer than what was there before.
    again.upsert("photos", &space(), vec![Point { id: id(3), ..point(300) }]).await.unwrap();
    assert_eq!(nearest(&again, 300, 1).await[0].id, id(3));
    again.close().await;
}

#[test]
fn two_processes_cannot_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _first = embedded(directory.path());
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
async fn a_log_that_outgrew_its_points_is_left_behind() {
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
    let again = embedded(directory.path());
    assert_eq!(nearest(&again, 0, 5000).await.len(), 1000);
    assert_eq!(nearest(&again, 2000, 1).await[0].id, id(3));
    again.close().await;
}

#[tokio::test]
async fn the_server_sees_the_key_and_requests_of_bounded_size() {
    let directory = tempfile::tempdir().unwrap();
    let (double, index) = server(directory.path()).await;
    index.upsert("photos", &space(), points(0..600)).await.unwrap();
    assert_eq!(*double.state.writes.lock().unwrap(), [256, 256, 88]);
    assert_eq!(double.state.last_key.lock().unwrap().as_deref(), Some("secret"));
}

#[tokio::test]
async fn what_the_server_did_not_complete_is_not_stored() {
    let directory = tempfile::tempdir().unwrap();
    let (double, index) = server(directory.path()).await;
    index.upsert("photos", &space(), points(0..1)).await.unwrap();
    for status in [UpdateStatus::Acknowledged, UpdateStatus::WaitTimeout, UpdateStatus::ClockRejected] {
        *double.state.write_status.lock().unwrap() = Some(status);
        let outcome = index.upsert("photos", &space(), points(1..2)).await;
        assert!(matches!(outcome, Err(IndexError::Unavailable(_))), "{status:?}");
    }
}

#[tokio::test]
async fn refusals_of_the_server_are_for_later_and_keep_their_words() {
    let directory = tempfile::tempdir().unwrap();
    let (double, index) = server(directory.path()).await;
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
async fn a_collection_deleted_on_the_server_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (double, index) = server(directory.path()).await;
    index.upsert("photos", &space(), points(0..1)).await.unwrap();
    double.delete("photos");
    assert!(nearest(&*index, 0, 1).await.is_empty());
    index.upsert("photos", &space(), points(1..2)).await.unwrap();
    double.delete("photos");
    // The write that finds it gone fails once; its repeat makes the collection.
    assert!(index.upsert("photos", &space(), points(2..3)).await.is_err());
    index.upsert("photos", &space(), points(2..3)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_keeps_no_metadata_is_named_as_the_cause() {
    let directory = tempfile::tempdir().unwrap();
    let (double, index) = server(directory.path()).await;
    *double.state.without_metadata.lock().unwrap() = true;
    let refused = index.upsert("photos", &space(), points(0..1)).await;
    let Err(IndexError::Unavailable(cause)) = refused else { panic!("{refused:?}") };
    assert!(cause.to_string().contains("1.16"), "{cause}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_for_later() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let spec = IndexSpec { url: Some(url), ..IndexSpec::default() };
    let index = index::open(&spec, std::path::Path::new("")).unwrap();
    assert!(matches!(index.upsert("photos", &space(), points(0..1)).await, Err(IndexError::Unavailable(_))));
    assert!(index.ready().await.is_err());
}
