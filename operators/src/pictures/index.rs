//! `use = "index"`: stores vectors in a collection under an owner's id, for `search` to find.
//!
//! The point's id is derived from the tenant, the owner's id and the digest of the encoded file: a repeat overwrites
//! itself, two photos of one report are two points, and the same report of another tenant is another point. A batch is
//! one upsert; when it returns, its points survive a crash.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use pipeline::{
    Batching, BoxError, DeclaredNames, Emits, Event, Fault, IndexError, KeyProblem, Need, Operator, OperatorKind,
    OperatorSpec, Output, Payload, PayloadKind, Point, Rejection, Services, Space, StageTypes, TENANT_PARAM, Vector,
    VectorIndex, point_id, take_kind,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::vectors::{check_values, other_model, space_of, unless_collection, vector_of};

/// `use = "index"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<IndexSpec>("index", "stores vectors in a collection under the id of their owner");

/// Default points per upsert: enough to share one flush, few enough for one gRPC message.
const DEFAULT_BATCH: usize = 64;

/// Longest owner's id, in bytes; it is stored with every point.
const MAX_ID_BYTES: usize = 256;

/// The keys of an `index` stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexSpec {
    /// Collection to store in; created on first use, for the vectors of one model.
    collection: String,
    /// Parameter that holds the owner's id, 1 to 256 bytes of text, for example `report_id`.
    id: String,
    /// Further parameters to store with the point, if the event has them.
    #[serde(default)]
    fields: Vec<String>,
}

impl OperatorSpec for IndexSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Vector], gives: Emits::Kind(PayloadKind::Json) }
    }

    fn batching(&self) -> Batching {
        Batching::greedy(DEFAULT_BATCH)
    }

    fn has_effect(&self) -> bool {
        true
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::of::<dyn VectorIndex>()]
    }

    fn check(&self, _: &DeclaredNames) -> Vec<KeyProblem> {
        let names =
            [&self.id].into_iter().map(|name| ("id", name)).chain(self.fields.iter().map(|name| ("fields", name)));
        let taken = names.filter(|(_, name)| name.starts_with('_')).map(|(key, name)| {
            let message = format!("{name:?} begins with _, which is reserved for the gateway's own parameters");
            KeyProblem { key, message, remedy: "name a parameter of the route".into() }
        });
        unless_collection(&self.collection).into_iter().chain(taken).collect()
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let index = services.get::<dyn VectorIndex>()?;
        Ok(Box::new(Index { spec: self.clone(), index }))
    }
}

/// Shares the index with the other instances.
struct Index {
    spec: IndexSpec,
    index: Arc<dyn VectorIndex>,
}

/// One event, its owner's id, and the point to store.
type Upsert = (Event, String, Point);

#[async_trait]
impl Operator for Index {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for (space, upserts) in self.plan(batch, out) {
            let points = upserts.iter().map(|(_, _, point)| point.clone()).collect();
            match self.index.upsert(&self.spec.collection, &space, points).await {
                Ok(()) => {
                    for (event, id, _) in upserts {
                        let mut answer = Map::new();
                        answer.insert(self.spec.id.clone(), id.into());
                        answer.insert("indexed".into(), true.into());
                        out.emit(&event, Payload::json(Value::Object(answer))).await?;
                    }
                }
                Err(IndexError::Unavailable(error)) => return Err(Fault::Unavailable(error)),
                Err(IndexError::OtherModel { collection, holds }) => {
                    let why = other_model(&collection, &holds, &space);
                    upserts.iter().for_each(|(event, _, _)| out.reject(event, why.clone()));
                }
            }
        }
        Ok(())
    }
}

impl Index {
    /// Groups the batch by the space of its vectors (nearly always one) and rejects what cannot be stored.
    fn plan(&self, batch: Vec<Event>, out: &mut Output) -> Vec<(Space, Vec<Upsert>)> {
        let mut order: Vec<(Space, Vec<Upsert>)> = Vec::new();
        let mut places: HashMap<(Arc<str>, usize), usize> = HashMap::new();
        for (event, vector) in take_kind(batch, out, vector_of) {
            let (id, point) = match self.point(&event, &vector) {
                Ok(point) => point,
                Err(why) => {
                    out.reject(&event, why);
                    continue;
                }
            };
            let key = (Arc::clone(&vector.fingerprint), vector.values.len());
            let place = *places.entry(key).or_insert_with(|| {
                order.push((space_of(&vector), Vec::new()));
                order.len() - 1
            });
            order[place].1.push((event, id, point));
        }
        order
    }

    fn point(&self, event: &Event, vector: &Vector) -> Result<(String, Point), Rejection> {
        check_values(vector)?;
        let params = &event.envelope.params;
        let id = match params.get(&self.spec.id).and_then(Value::as_str) {
            Some(id) if !id.is_empty() && id.len() <= MAX_ID_BYTES => id.to_owned(),
            Some(id) => {
                let detail =
                    format!("parameter {:?} has {} bytes; expected 1 to {MAX_ID_BYTES}", self.spec.id, id.len());
                return Err(Rejection::new(400, "bad_parameter", detail));
            }
            None => {
                let detail = format!("parameter {:?} is missing; it names the owner of the image", self.spec.id);
                return Err(Rejection::new(400, "missing_parameter", detail));
            }
        };
        let mut fields: Map<String, Value> = Map::new();
        for name in self.spec.fields.iter().chain([&self.spec.id]) {
            if let Some(value) = params.get(name) {
                fields.insert(name.clone(), value.clone());
            }
        }
        let tenant = event.envelope.tenant();
        fields.extend(tenant.map(|tenant| (TENANT_PARAM.to_owned(), tenant.into())));
        let id_of_point = point_id(tenant.unwrap_or_default(), &id, &vector.sha256);
        let point = Point { id: id_of_point, values: vector.values.clone(), fields };
        Ok((id, point))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::test_doubles::{ExactIndex, UnavailableIndex, services_with_index, vector};
    use pipeline::testing::{run, run_events};
    use pipeline::{Digest, Params};
    use serde_json::json;

    pub(crate) fn spec() -> IndexSpec {
        IndexSpec { collection: "reports".into(), id: "report_id".into(), fields: vec!["colour".into()] }
    }

    fn operator(index: Arc<dyn VectorIndex>) -> Box<dyn Operator> {
        spec().build(&services_with_index(index)).unwrap()
    }

    fn params(report: &str) -> Params {
        [("report_id".to_owned(), json!(report)), ("colour".to_owned(), json!("brown"))].into()
    }

    fn payload(values: &[f32]) -> Payload {
        Payload::Vector(Arc::new(vector(values)))
    }

    #[tokio::test]
    async fn a_repeat_overwrites_itself_and_two_photos_of_a_report_are_two_points() {
        let index = Arc::new(ExactIndex::default());
        let mut operator = operator(index.clone());
        for _ in 0..2 {
            let batch = vec![payload(&[1.0, 0.0]), payload(&[0.0, 1.0])];
            let ran = run(operator.as_mut(), params("r1"), batch).await;
            assert_eq!(ran.emitted.len(), 2);
            let Payload::Json(answer) = &ran.emitted[0].1 else { panic!("{:?}", ran.emitted) };
            assert_eq!(**answer, json!({"report_id": "r1", "indexed": true}));
        }
        let points = index.points("reports");
        assert_eq!(points.len(), 2);
        assert_eq!(Value::Object(points[0].fields.clone()), json!({"report_id": "r1", "colour": "brown"}));
    }

    #[tokio::test]
    async fn an_invalid_vector_or_owner_is_rejected_and_the_others_are_stored() {
        let index = Arc::new(ExactIndex::default());
        let events = vec![
            (params("r1"), payload(&[f32::NAN, 0.0])),
            (Params::new(), payload(&[1.0, 0.0])),
            (params(""), payload(&[1.0, 0.0])),
            (params(&"x".repeat(257)), payload(&[1.0, 0.0])),
            (params("r1"), payload(&[])),
            (params("r2"), payload(&[1.0, 0.0])),
        ];
        let ran = run_events(operator(index.clone()).as_mut(), events).await;
        let refused: Vec<_> = ran.rejected.iter().map(|(place, why)| (*place, why.status)).collect();
        assert_eq!(refused, [(0, 422), (1, 400), (2, 400), (3, 400), (4, 422)]);
        assert!(ran.rejected[1].1.detail.contains("report_id"));
        assert_eq!(ran.emitted.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [5]);
        assert_eq!(index.points("reports").len(), 1);
    }

    #[tokio::test]
    async fn a_vector_of_another_model_is_refused_by_name() {
        let index = Arc::new(ExactIndex::default());
        let mut operator = operator(index.clone());
        run(operator.as_mut(), params("r1"), vec![payload(&[1.0, 0.0])]).await;
        let other = Vector { fingerprint: "another-model-altogether".into(), ..vector(&[1.0, 0.0]) };
        let batch = vec![Payload::Vector(Arc::new(other)), payload(&[0.0, 1.0])];
        let ran = run(operator.as_mut(), params("r2"), batch).await;
        let (place, why) = &ran.rejected[0];
        assert_eq!((*place, why.status, &*why.code), (0, 409, "model_mismatch"));
        assert!(why.detail.contains("another-mode") && why.detail.contains("test-model"), "{}", why.detail);
        assert_eq!(ran.emitted.len(), 1);
    }

    #[tokio::test]
    async fn an_unavailable_index_retries_the_batch() {
        let ran = run(operator(Arc::new(UnavailableIndex)).as_mut(), params("r1"), vec![payload(&[1.0])]).await;
        assert!(matches!(ran.fault, Some(Fault::Unavailable(_))) && ran.emitted.is_empty());
    }

    #[test]
    fn the_point_id_depends_on_tenant_owner_and_picture() {
        let (a, b) = (Digest([1; 32]), Digest([2; 32]));
        assert_eq!(point_id("", "r1", &a), point_id("", "r1", &a));
        assert_ne!(point_id("", "r1", &a), point_id("", "r2", &a));
        assert_ne!(point_id("", "r1", &a), point_id("", "r1", &b));
        assert_ne!(point_id("", "r1", &a), point_id("acme", "r1", &a));
    }

    #[tokio::test]
    async fn one_report_of_two_tenants_is_two_points() {
        let index = Arc::new(ExactIndex::default());
        let of = |tenant: Option<&str>| {
            let tenant = tenant.map(|tenant| (TENANT_PARAM.to_owned(), json!(tenant)));
            (params("r1").into_iter().chain(tenant).collect(), payload(&[1.0, 0.0]))
        };
        let events = vec![of(None), of(Some("acme")), of(Some("other")), of(Some("acme"))];
        run_events(operator(index.clone()).as_mut(), events).await;
        let tenant_of = |point: &Point| point.fields.get(TENANT_PARAM).cloned().unwrap_or_default();
        let mut tenants: Vec<Value> = index.points("reports").iter().map(tenant_of).collect();
        tenants.sort_by_key(Value::to_string);
        assert_eq!(tenants, [json!("acme"), json!("other"), json!(null)]);
    }

    #[test]
    fn a_parameter_of_the_gateway_cannot_be_a_field() {
        let spec = IndexSpec { fields: vec![TENANT_PARAM.into()], ..spec() };
        assert_eq!(spec.check(&DeclaredNames::default())[0].key, "fields");
    }

    #[test]
    fn a_collection_that_would_be_a_path_is_a_problem() {
        let spec = IndexSpec { collection: "../reports".into(), ..spec() };
        assert_eq!(spec.check(&DeclaredNames::default())[0].key, "collection");
    }
}
