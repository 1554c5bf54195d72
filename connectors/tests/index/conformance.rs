//! Conformance suite of vector indexes: what every implementation of `pipeline::VectorIndex` must do.
//!
//! `index_conformance!(open)` makes one test of each behaviour. `open` is an async function that takes a new, empty
//! folder and returns the index on it, with whatever must live as long (a server, for example). A new kind of index
//! calls the macro in a file of its own beside `embedded.rs` and `qdrant.rs`.

use connectors::index::IndexSpec;
use pipeline::{Hit, IndexError, Nearest, Point, Space, TENANT_PARAM, VectorIndex};
use uuid::Uuid;

use crate::support::{self, Noise};

/// Length of the suite's vectors.
pub const DIM: usize = 32;

/// The space of the suite's model.
pub fn space() -> Space {
    Space { fingerprint: "model-a".into(), dim: DIM }
}

/// The space of another model, with vectors of the same length.
pub fn other_space() -> Space {
    Space { fingerprint: "model-b".into(), dim: DIM }
}

pub fn id(number: u64) -> Uuid {
    Uuid::from_u64_pair(7, number)
}

/// The `number`-th point: its vector is unique, its field names it.
pub fn point(number: u64) -> Point {
    let fields = serde_json::Map::from_iter([("report_id".to_string(), format!("r{number}").into())]);
    Point { id: id(number), values: Noise::new(number).unit(DIM), fields }
}

pub fn points(numbers: std::ops::Range<u64>) -> Vec<Point> {
    numbers.map(point).collect()
}

/// Point `number` of a tenant; `None` for a point without a tenant.
pub fn point_of(tenant: Option<&str>, number: u64) -> Point {
    let mut point = point(number);
    point.fields.extend(tenant.map(|tenant| (TENANT_PARAM.to_owned(), tenant.into())));
    point
}

/// The points nearest to the vector of point `number`.
pub async fn nearest(index: &dyn VectorIndex, number: u64, limit: usize) -> Vec<Hit> {
    index.search("photos", &space(), Nearest::to(&point(number).values, limit)).await.unwrap()
}

/// Ids of a tenant's points nearest to the vector of point 7.
async fn ids_of(index: &dyn VectorIndex, tenant: Option<&str>) -> Vec<Uuid> {
    let vector = point(7).values;
    let nearest = Nearest { vector: &vector, limit: 10, tenant };
    index.search("photos", &space(), nearest).await.unwrap().into_iter().map(|hit| hit.id).collect()
}

pub fn is_other_model<T>(outcome: &Result<T, IndexError>) -> bool {
    matches!(outcome, Err(IndexError::OtherModel { holds, .. }) if *holds == ("model-a".to_string(), DIM))
}

fn is_unavailable<T>(outcome: &Result<T, IndexError>) -> bool {
    matches!(outcome, Err(IndexError::Unavailable(_)))
}

/// A section of the suite's config, checked.
pub fn spec(json: serde_json::Value) -> IndexSpec {
    let spec: IndexSpec = serde_json::from_value(json).unwrap();
    assert!(spec.check().is_empty(), "{:?}", spec.check());
    spec
}

/// Polls all of them to their end, in turn, so that they run concurrently.
async fn join_all(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    futures_util::future::join_all(futures).await;
}

pub async fn hits_are_sorted_by_score_best_first(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..20)).await.unwrap();
    let found = nearest(index, 5, 4).await;
    assert_eq!((found.len(), found[0].id), (4, id(5)));
    assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
}

pub async fn a_score_is_the_cosine(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..20)).await.unwrap();
    let mut expected: Vec<f32> =
        points(0..20).iter().map(|other| support::cosine(&point(5).values, &other.values)).collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    let found = nearest(index, 5, 4).await;
    assert!((found[0].score - 1.0).abs() < 1e-4);
    assert!(found.iter().zip(expected).all(|(hit, score)| (hit.score - score).abs() < 1e-4));
}

pub async fn a_hit_has_the_fields_of_its_point(index: &dyn VectorIndex) {
    let mut stored = point(1);
    stored.fields.insert("more".into(), serde_json::json!({"nested": [1, 2.5, null, true]}));
    let fields = stored.fields.clone();
    index.upsert("photos", &space(), vec![stored]).await.unwrap();
    assert_eq!(nearest(index, 1, 1).await[0].fields, fields);
}

pub async fn the_limit_bounds_the_hits(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..5)).await.unwrap();
    assert_eq!(nearest(index, 1, 3).await.len(), 3);
    assert_eq!(nearest(index, 1, 10).await.len(), 5);
}

pub async fn a_limit_of_zero_finds_nothing(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..2)).await.unwrap();
    assert!(nearest(index, 1, 0).await.is_empty());
}

pub async fn a_missing_collection_is_empty(index: &dyn VectorIndex) {
    assert!(nearest(index, 1, 10).await.is_empty());
}

pub async fn the_same_id_replaces_vector_and_fields(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..3)).await.unwrap();
    let moved = Point { id: id(1), ..point(100) };
    let fields = moved.fields.clone();
    index.upsert("photos", &space(), vec![point(2), moved]).await.unwrap();
    let found = nearest(index, 100, 10).await;
    assert_eq!(found.len(), 3);
    assert_eq!((found[0].id, &found[0].fields), (id(1), &fields));
}

pub async fn of_one_id_twice_in_a_batch_the_last_stays(index: &dyn VectorIndex) {
    let twice = vec![point(1), Point { id: id(1), ..point(2) }];
    index.upsert("photos", &space(), twice).await.unwrap();
    let found = nearest(index, 2, 10).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].fields["report_id"], "r2");
}

pub async fn a_write_of_another_model_is_refused_and_nothing_is_written(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..2)).await.unwrap();
    assert!(is_other_model(&index.upsert("photos", &other_space(), points(5..6)).await));
    assert_eq!(nearest(index, 0, 10).await.len(), 2);
}

pub async fn a_search_of_another_model_is_refused(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..2)).await.unwrap();
    assert!(is_other_model(&index.search("photos", &other_space(), Nearest::to(&point(0).values, 3)).await));
}

pub async fn the_same_model_with_another_length_is_refused(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..2)).await.unwrap();
    let longer = Space { fingerprint: "model-a".into(), dim: DIM + 1 };
    let long_point = Point { values: vec![0.5; DIM + 1], ..point(7) };
    assert!(is_other_model(&index.upsert("photos", &longer, vec![long_point]).await));
    assert_eq!(nearest(index, 0, 10).await.len(), 2);
}

pub async fn another_model_has_its_own_collection(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..2)).await.unwrap();
    index.upsert("others", &other_space(), points(5..6)).await.unwrap();
    let found = index.search("others", &other_space(), Nearest::to(&point(5).values, 3)).await.unwrap();
    assert_eq!(found.len(), 1);
}

pub async fn a_vector_of_the_wrong_length_refuses_its_whole_batch(index: &dyn VectorIndex) {
    let short = Point { values: vec![1.0; 3], ..point(0) };
    let refused = index.upsert("photos", &space(), vec![point(1), short]).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    assert!(nearest(index, 1, 10).await.is_empty());
}

pub async fn a_vector_that_is_not_finite_refuses_its_whole_batch(index: &dyn VectorIndex) {
    let mut broken = point(0);
    broken.values[3] = f32::NAN;
    let refused = index.upsert("photos", &space(), vec![point(1), broken]).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    assert!(nearest(index, 1, 10).await.is_empty());
}

pub async fn a_search_with_the_wrong_length_is_refused(index: &dyn VectorIndex) {
    assert!(index.search("photos", &space(), Nearest::to(&[1.0; 3], 3)).await.is_err());
}

pub async fn a_search_that_is_not_finite_is_refused(index: &dyn VectorIndex) {
    assert!(index.search("photos", &space(), Nearest::to(&[f32::INFINITY; DIM], 3)).await.is_err());
}

pub async fn collection_names_that_are_no_tokens_are_refused(index: &dyn VectorIndex) {
    for name in ["", "..", "a/b", "a.b", &"x".repeat(65)] {
        assert!(index.upsert(name, &space(), points(0..1)).await.is_err(), "{name:?}");
        assert!(index.search(name, &space(), Nearest::to(&point(0).values, 1)).await.is_err(), "{name:?}");
    }
}

pub async fn a_thousand_points_at_once_are_each_found(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..1000)).await.unwrap();
    for number in (0..1000).step_by(37) {
        assert_eq!(nearest(index, number, 1).await[0].id, id(number));
    }
    assert_eq!(nearest(index, 0, 2000).await.len(), 1000);
}

pub async fn concurrent_writers_read_their_own_writes(index: &dyn VectorIndex) {
    let writers = (0..32u64).map(|writer| async move {
        for batch in 0..4 {
            let first = writer * 20 + batch * 5;
            index.upsert("photos", &space(), points(first..first + 5)).await.unwrap();
            assert_eq!(nearest(index, first, 1).await[0].id, id(first));
        }
    });
    join_all(writers).await;
    assert_eq!(nearest(index, 0, 2000).await.len(), 640);
}

/// Points 0 to 39 without a tenant, and a few of three tenants.
async fn store_for_tenants(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..40)).await.unwrap();
    for (tenant, number) in [("acme", 100), ("acme", 101), ("other", 102), ("o'ther\"*", 103)] {
        index.upsert("photos", &space(), vec![point_of(Some(tenant), number)]).await.unwrap();
    }
}

pub async fn a_tenant_finds_only_its_own_points(index: &dyn VectorIndex) {
    store_for_tenants(index).await;
    let mut of_acme = ids_of(index, Some("acme")).await;
    of_acme.sort();
    assert_eq!(of_acme, [id(100), id(101)]);
    assert_eq!(ids_of(index, Some("other")).await, [id(102)]);
}

pub async fn a_tenant_name_is_compared_literally(index: &dyn VectorIndex) {
    store_for_tenants(index).await;
    assert_eq!(ids_of(index, Some("o'ther\"*")).await, [id(103)]);
    for stranger in ["", "acm", "ACME", "acme ", "*"] {
        assert!(ids_of(index, Some(stranger)).await.is_empty(), "{stranger:?}");
    }
}

pub async fn points_without_a_tenant_are_hidden_from_tenants(index: &dyn VectorIndex) {
    // As a service without authentication leaves them.
    index.upsert("photos", &space(), points(0..40)).await.unwrap();
    assert!(ids_of(index, Some("acme")).await.is_empty());
}

pub async fn a_search_without_a_tenant_finds_only_points_without_one(index: &dyn VectorIndex) {
    store_for_tenants(index).await;
    let found = ids_of(index, None).await;
    // Ten of them: points of tenants take no place among the hits.
    assert_eq!((found.len(), found[0]), (10, id(7)));
    assert!(found.iter().all(|found| (0..40).any(|number| *found == id(number))));
}

pub async fn an_empty_write_succeeds(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), Vec::new()).await.unwrap();
    assert!(nearest(index, 1, 10).await.is_empty());
}

pub async fn a_new_index_is_ready(index: &dyn VectorIndex) {
    index.ready().await.unwrap();
}

pub async fn an_index_is_ready_after_a_write(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..2)).await.unwrap();
    index.ready().await.unwrap();
}

pub async fn closing_twice_does_no_harm(index: &dyn VectorIndex) {
    index.upsert("photos", &space(), points(0..2)).await.unwrap();
    index.close().await;
    index.close().await;
}

/// Makes one test of each behaviour of the suite; `$open` opens an index on an empty folder.
macro_rules! index_conformance {
    ($open:path) => {
        $crate::conformance::index_conformance! { $open:
            hits_are_sorted_by_score_best_first,
            a_score_is_the_cosine,
            a_hit_has_the_fields_of_its_point,
            the_limit_bounds_the_hits,
            a_limit_of_zero_finds_nothing,
            a_missing_collection_is_empty,
            the_same_id_replaces_vector_and_fields,
            of_one_id_twice_in_a_batch_the_last_stays,
            a_write_of_another_model_is_refused_and_nothing_is_written,
            a_search_of_another_model_is_refused,
            the_same_model_with_another_length_is_refused,
            another_model_has_its_own_collection,
            a_vector_of_the_wrong_length_refuses_its_whole_batch,
            a_vector_that_is_not_finite_refuses_its_whole_batch,
            a_search_with_the_wrong_length_is_refused,
            a_search_that_is_not_finite_is_refused,
            collection_names_that_are_no_tokens_are_refused,
            a_thousand_points_at_once_are_each_found,
            concurrent_writers_read_their_own_writes,
            a_tenant_finds_only_its_own_points,
            a_tenant_name_is_compared_literally,
            points_without_a_tenant_are_hidden_from_tenants,
            a_search_without_a_tenant_finds_only_points_without_one,
            an_empty_write_succeeds,
            a_new_index_is_ready,
            an_index_is_ready_after_a_write,
            closing_twice_does_no_harm,
        }
    };
    ($open:path: $($behaviour:ident,)+) => {
        $(#[tokio::test]
        async fn $behaviour() {
            let folder = tempfile::tempdir().unwrap();
            let (index, _alive) = $open(folder.path()).await;
            $crate::conformance::$behaviour(&*index).await;
            index.close().await;
        })+
    };
}
pub(crate) use index_conformance;
