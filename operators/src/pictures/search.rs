//! `use = "search"`: finds the owners of the indexed vectors nearest to a vector.
//!
//! An owner (for example a report) may have many points; it appears once, with the score of its best point. So that
//! enough owners remain, more points are fetched than requested, at most 1024. A tenant finds only its own points; a
//! request without a tenant finds only points without one.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use pipeline::{
    Batching, BoxError, DeclaredNames, Emits, Envelope, Event, Fault, Hit, IndexError, KeyProblem, Nearest, Need,
    Operator, OperatorKind, OperatorSpec, Output, Params, Payload, PayloadKind, Rejection, Services, StageTypes,
    Vector, VectorIndex, take_kind,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::vectors::{check_values, other_model, space_of, unless_collection, vector_of};

/// `use = "search"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<SearchSpec>("search", "finds the owners of the vectors nearest to one");

/// Default concurrent searches; each is one call of the index.
const DEFAULT_BATCH: usize = 16;
/// Points fetched per requested owner, in the first call: reports have a few photos each.
const POINTS_PER_OWNER: usize = 4;
/// Most points fetched for one search.
const MAX_FETCHED: usize = 1_024;

/// The keys of a `search` stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchSpec {
    /// Collection to search; created by `index`.
    collection: String,
    /// Field that holds the owner's id, for example `report_id`.
    id: String,
    /// Parameter that holds the number of owners to return, a whole number from 1.
    #[serde(default = "default_limit_param")]
    limit: String,
    /// Owners returned if the parameter is absent, from 1 to `max_limit`.
    #[serde(default = "default_limit")]
    default_limit: usize,
    /// Most owners per search, from 1 to 1024; more would occupy the index for too long.
    #[serde(default = "default_max_limit")]
    max_limit: usize,
}

fn default_limit_param() -> String {
    "limit".into()
}

/// One screen.
fn default_limit() -> usize {
    10
}

/// Ten screens: users look no further, and a search stays in the milliseconds.
fn default_max_limit() -> usize {
    100
}

impl OperatorSpec for SearchSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Vector], gives: Emits::Kind(PayloadKind::Json) }
    }

    fn batching(&self) -> Batching {
        Batching::greedy(DEFAULT_BATCH)
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::of::<dyn VectorIndex>()]
    }

    fn check(&self, _: &DeclaredNames) -> Vec<KeyProblem> {
        let mut key_problems: Vec<KeyProblem> = unless_collection(&self.collection).into_iter().collect();
        if !(1..=MAX_FETCHED).contains(&self.max_limit) {
            let message = format!("max_limit is {}", self.max_limit);
            let remedy = format!("give a number from 1 to {MAX_FETCHED}");
            key_problems.push(KeyProblem { key: "max_limit", message, remedy });
        } else if !(1..=self.max_limit).contains(&self.default_limit) {
            let message = format!("default_limit is {}", self.default_limit);
            let remedy = format!("give a number from 1 to max_limit, which is {}", self.max_limit);
            key_problems.push(KeyProblem { key: "default_limit", message, remedy });
        }
        key_problems
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let index = services.get::<dyn VectorIndex>()?;
        Ok(Box::new(Search { spec: self.clone(), index }))
    }
}

/// Shares the index with the other instances.
struct Search {
    spec: SearchSpec,
    index: Arc<dyn VectorIndex>,
}

/// Why one search failed.
enum SearchFailure {
    Rejected(Rejection),
    Unavailable(BoxError),
}

#[async_trait]
impl Operator for Search {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        let queries = take_kind(batch, out, vector_of);
        let answers = join_all(queries.iter().map(|(event, vector)| self.answer(&event.envelope, vector))).await;
        for ((event, _), answer) in queries.iter().zip(answers) {
            match answer {
                Ok(matches) => out.emit(event, Payload::json(json!({ "matches": matches }))).await?,
                Err(SearchFailure::Rejected(why)) => out.reject(event, why),
                Err(SearchFailure::Unavailable(error)) => return Err(Fault::Unavailable(error)),
            }
        }
        Ok(())
    }
}

impl Search {
    async fn answer(&self, envelope: &Envelope, vector: &Vector) -> Result<Vec<Value>, SearchFailure> {
        check_values(vector).map_err(SearchFailure::Rejected)?;
        let limit = self.limit(&envelope.params).map_err(SearchFailure::Rejected)?;
        let mut fetched = (limit * POINTS_PER_OWNER).min(MAX_FETCHED);
        loop {
            let nearest = Nearest { vector: &vector.values, limit: fetched, tenant: envelope.tenant() };
            let hits = self.points(vector, nearest).await?;
            let all = hits.len() < fetched || fetched == MAX_FETCHED;
            let owners = best_per_owner(hits, &self.spec.id, limit);
            if all || owners.len() == limit {
                return Ok(owners.into_iter().map(|(id, score)| self.entry(id, score)).collect());
            }
            fetched = (fetched * POINTS_PER_OWNER).min(MAX_FETCHED);
        }
    }

    async fn points(&self, vector: &Vector, nearest: Nearest<'_>) -> Result<Vec<Hit>, SearchFailure> {
        let space = space_of(vector);
        match self.index.search(&self.spec.collection, &space, nearest).await {
            Ok(hits) => Ok(hits),
            Err(IndexError::Unavailable(error)) => Err(SearchFailure::Unavailable(error)),
            Err(IndexError::OtherModel { collection, holds }) => {
                Err(SearchFailure::Rejected(other_model(&collection, &holds, &space)))
            }
        }
    }

    fn entry(&self, id: Value, score: f32) -> Value {
        let mut entry = Map::new();
        entry.insert(self.spec.id.clone(), id);
        // Six decimals are the precision of f32 arithmetic.
        entry.insert("score".into(), ((f64::from(score) * 1e6).round() / 1e6).into());
        Value::Object(entry)
    }

    fn limit(&self, params: &Params) -> Result<usize, Rejection> {
        let Some(value) = params.get(&self.spec.limit) else { return Ok(self.spec.default_limit) };
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        match number.and_then(|number| usize::try_from(number).ok()) {
            Some(limit) if (1..=self.spec.max_limit).contains(&limit) => Ok(limit),
            _ => {
                let (name, most) = (&self.spec.limit, self.spec.max_limit);
                let detail = format!("parameter {name:?} is {value}; expected a whole number from 1 to {most}");
                Err(Rejection::new(400, "bad_parameter", detail))
            }
        }
    }
}

/// The first `limit` owners by their best score, best first. Points without an owner or a finite score are skipped.
fn best_per_owner(mut hits: Vec<Hit>, id: &str, limit: usize) -> Vec<(Value, f32)> {
    hits.retain(|hit| hit.score.is_finite());
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    let mut seen: HashSet<String> = HashSet::new();
    let mut owners = Vec::new();
    for mut hit in hits {
        let Some(owner) = hit.fields.remove(id) else { continue };
        if owners.len() < limit && seen.insert(owner.to_string()) {
            owners.push((owner, hit.score));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_doubles::{ExactIndex, GatheringIndex, UnavailableIndex, services_with_index, vector};
    use pipeline::TENANT_PARAM;
    use pipeline::testing::{PATIENCE, run, run_events};

    fn spec() -> SearchSpec {
        serde_json::from_value(json!({"collection": "reports", "id": "report_id"})).unwrap()
    }

    fn operator(index: Arc<dyn VectorIndex>) -> Box<dyn Operator> {
        spec().build(&services_with_index(index)).unwrap()
    }

    fn limit(value: Value) -> Params {
        [("limit".to_owned(), value)].into()
    }

    fn query() -> Payload {
        Payload::Vector(Arc::new(vector(&[1.0, 0.0])))
    }

    /// `reports` reports with `photos` photos each, the first report nearest to `[1, 0]`.
    fn filled(reports: usize, photos: usize) -> Arc<ExactIndex> {
        let index = ExactIndex::default();
        for report in 0..reports {
            for photo in 0..photos {
                let angle = 0.001 * (report * photos + photo) as f32;
                index.add("reports", &format!("r{report}"), &[angle.cos(), angle.sin()]);
            }
        }
        Arc::new(index)
    }

    fn matches(payload: &Payload) -> Vec<(String, f64)> {
        let Payload::Json(value) = payload else { panic!("{payload:?}") };
        let entry = |entry: &Value| (entry["report_id"].as_str().unwrap().into(), entry["score"].as_f64().unwrap());
        value["matches"].as_array().unwrap().iter().map(entry).collect()
    }

    #[tokio::test]
    async fn a_report_with_many_photos_is_answered_once_with_its_best_score() {
        // 60 photos each: the first fetch of 4 × limit points holds one report alone.
        let ran = run(operator(filled(4, 60)).as_mut(), limit(json!(3)), vec![query()]).await;
        let found = matches(&ran.emitted[0].1);
        assert_eq!(found.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["r0", "r1", "r2"]);
        assert!((found[0].1 - 1.0).abs() < 1e-6);
        assert!(found.windows(2).all(|pair| pair[0].1 > pair[1].1));
    }

    #[tokio::test]
    async fn the_limit_is_10_by_default() {
        let events =
            [None, Some(json!("7")), Some(json!(30))].map(|value| (value.map(limit).unwrap_or_default(), query()));
        let ran = run_events(operator(filled(30, 1)).as_mut(), events.into()).await;
        assert_eq!(ran.emitted.iter().map(|(_, payload)| matches(payload).len()).collect::<Vec<_>>(), [10, 7, 30]);
        assert!(ran.rejected.is_empty());
    }

    #[tokio::test]
    async fn an_invalid_limit_is_rejected_by_name() {
        let events = [json!(1), json!(0), json!(101), json!("x")].map(|value| (limit(value), query()));
        let ran = run_events(operator(filled(30, 1)).as_mut(), events.into()).await;
        assert_eq!(ran.emitted.len(), 1);
        assert_eq!(
            ran.rejected.iter().map(|(place, why)| (*place, why.status)).collect::<Vec<_>>(),
            [(1, 400), (2, 400), (3, 400)]
        );
        assert!(ran.rejected[1].1.detail.contains("\"limit\" is 101"));
    }

    #[tokio::test]
    async fn a_tenant_finds_only_its_own_reports() {
        let index = filled(20, 1);
        for (tenant, report) in [("acme", "a1"), ("acme", "a2"), ("other", "o1")] {
            let params: Params = [("report_id", report), (TENANT_PARAM, tenant)]
                .map(|(name, value)| (name.to_owned(), json!(value)))
                .into();
            let mut indexing =
                crate::pictures::index::tests::spec().build(&services_with_index(index.clone())).unwrap();
            let ran = run(indexing.as_mut(), params, vec![query()]).await;
            assert_eq!(ran.emitted.len(), 1);
        }
        let found = |tenant: Option<&str>| {
            let params = tenant.map(|tenant| (TENANT_PARAM.to_owned(), json!(tenant))).into_iter().collect();
            let index: Arc<dyn VectorIndex> = index.clone();
            async move {
                let ran = run(operator(index).as_mut(), params, vec![query()]).await;
                matches(&ran.emitted[0].1).into_iter().map(|(id, _)| id).collect::<Vec<_>>()
            }
        };
        assert_eq!(found(Some("acme")).await.len(), 2);
        assert_eq!(found(Some("other")).await, ["o1"]);
        assert!(found(Some("acm")).await.is_empty());
        let of_nobody = found(None).await;
        assert!(of_nobody.len() == 10 && of_nobody.iter().all(|id| id.starts_with('r')), "{of_nobody:?}");
    }

    #[tokio::test]
    async fn an_empty_index_finds_nothing() {
        let ran = run(operator(filled(0, 0)).as_mut(), Params::new(), vec![query()]).await;
        assert!(matches(&ran.emitted[0].1).is_empty());
    }

    #[tokio::test]
    async fn vectors_of_another_model_are_not_compared() {
        let other = Payload::Vector(Arc::new(Vector { fingerprint: "other".into(), ..vector(&[1.0, 0.0]) }));
        let poison = Payload::Vector(Arc::new(vector(&[f32::INFINITY, 0.0])));
        let ran = run(operator(filled(2, 1)).as_mut(), Params::new(), vec![other, poison, query()]).await;
        let refused: Vec<_> = ran.rejected.iter().map(|(place, why)| (*place, why.status)).collect();
        assert_eq!(refused, [(0, 409), (1, 422)]);
        assert_eq!(ran.emitted.len(), 1);
    }

    #[tokio::test]
    async fn an_unavailable_index_retries_the_batch() {
        let ran = run(operator(Arc::new(UnavailableIndex)).as_mut(), Params::new(), vec![query()]).await;
        assert!(matches!(ran.fault, Some(Fault::Unavailable(_))) && ran.emitted.is_empty());
    }

    #[tokio::test]
    async fn the_searches_of_a_batch_run_concurrently() {
        let mut operator = operator(Arc::new(GatheringIndex::of(16)));
        let running = run(operator.as_mut(), Params::new(), vec![query(); 16]);
        let ran = tokio::time::timeout(PATIENCE, running).await.expect("all sixteen are waiting at once");
        assert_eq!(ran.emitted.len(), 16);
    }

    #[test]
    fn limits_that_contradict_each_other_are_a_problem() {
        let spec = SearchSpec { default_limit: 200, ..spec() };
        assert_eq!(spec.check(&DeclaredNames::default())[0].key, "default_limit");
        let spec = SearchSpec { max_limit: 0, ..spec };
        assert_eq!(spec.check(&DeclaredNames::default())[0].key, "max_limit");
    }
}
