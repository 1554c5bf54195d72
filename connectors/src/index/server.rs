//! A Qdrant server or cluster, by gRPC.
//!
//! The space of a collection is kept as the collection's own metadata (Qdrant 1.16 and later), so that every process sees
//! the same. A collection without it was made by somebody else and is refused. Writes wait until they are applied
//! (`wait = true`) and only `Completed` counts. The server is not the place of last resort: ids are deterministic, and
//! whatever it refuses comes again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pipeline::spec::Secret;
use pipeline::{BoxError, Hit, IndexError, Nearest, Point, Space, TENANT_PARAM, VectorIndex};
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{
    CollectionInfo, Condition, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, Distance, FieldType, Filter,
    KeywordIndexParamsBuilder, PointStruct, Query, QueryPointsBuilder, ScoredPoint, UpdateStatus, UpsertPointsBuilder,
    VectorParamsBuilder,
};
use qdrant_client::{Payload, Qdrant, QdrantError};
use serde_json::Value;
use tonic::Code;

use super::spec::IndexSpec;
use super::{OpenError, check_name, check_points, check_space, check_vector, unavailable};

/// Metadata key of a collection: the fingerprint of the model whose vectors it holds.
const FINGERPRINT: &str = "caudal_model";

/// Points per request: beyond this a request only grows, up to the server's limit on one.
const REQUEST_POINTS: usize = 256;

/// Where the config says nothing.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Spaces remembered, so that a name that changes with every request cannot fill the memory.
const REMEMBERED: usize = 1024;

/// A connection to a server; made on first use, shared by all.
pub struct ServerIndex {
    client: Qdrant,
    /// Spaces of collections that were looked up: a collection's space never changes.
    spaces: Mutex<HashMap<String, Known>>,
}

/// What is known of a collection.
struct Known {
    space: Space,
    /// Whether the server indexes the field that holds the tenant.
    indexed: bool,
}

impl ServerIndex {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// If `url` is missing or not an address, or the key cannot be read.
    pub fn new(spec: &IndexSpec) -> Result<Self, OpenError> {
        let url = spec.url.clone().unwrap_or_default();
        let timeout = spec.timeout_ms.map_or(TIMEOUT, |ms| Duration::from_millis(ms.get()));
        // The compatibility check would print to standard output, which is not ours to write to.
        let mut config = Qdrant::from_url(&url).timeout(timeout).connect_timeout(timeout).skip_compatibility_check();
        let key = spec.api_key.as_ref().map(Secret::read).transpose();
        let key = key.map_err(|source| OpenError::Server { url: url.clone(), source: source.into() })?;
        config.api_key = key.map(|key| key.expose().to_owned());
        let client = config.build().map_err(|source| OpenError::Server { url, source: source.into() })?;
        Ok(Self { client, spaces: Mutex::default() })
    }

    /// The collection's space, or `None` if there is no such collection.
    async fn space(&self, collection: &str) -> Result<Option<Space>, IndexError> {
        if let Some(known) = self.spaces.lock().unwrap_or_else(PoisonError::into_inner).get(collection) {
            return Ok(Some(known.space.clone()));
        }
        let found = match self.client.collection_info(collection).await {
            Ok(found) => found.result.ok_or_else(|| unavailable("the server gave no collection info"))?,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(refused(error)),
        };
        let space = space_of(&found);
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        if spaces.len() >= REMEMBERED {
            spaces.clear();
        }
        let indexed = found.payload_schema.contains_key(TENANT_PARAM);
        spaces.insert(collection.into(), Known { space: space.clone(), indexed });
        Ok(Some(space))
    }

    /// Makes the collection unless it exists, and checks that it is of this space.
    async fn ensure(&self, collection: &str, space: &Space) -> Result<(), IndexError> {
        if let Some(holds) = self.space(collection).await? {
            check_space(collection, &holds, space)?;
            return self.index_tenants(collection).await;
        }
        let metadata = HashMap::from([(FINGERPRINT.to_string(), Value::from(space.fingerprint.clone()))]);
        let vectors = VectorParamsBuilder::new(space.dim as u64, Distance::Cosine);
        let request = CreateCollectionBuilder::new(collection).vectors_config(vectors).metadata(metadata);
        let created = self.client.create_collection(request).await;
        // Another process may have been first: what counts is what is there now.
        match (self.space(collection).await?, created) {
            (Some(holds), Ok(_)) if holds.fingerprint.is_empty() => {
                Err(unavailable("the server keeps no metadata of collections: Qdrant 1.16 or later is needed"))
            }
            (Some(holds), _) => {
                check_space(collection, &holds, space)?;
                self.index_tenants(collection).await
            }
            (None, Err(error)) => Err(refused(error)),
            (None, Ok(_)) => Err(unavailable("the server made the collection and does not have it")),
        }
    }

    /// Lets the server find the points of a tenant, or of nobody, without looking at every other one. Asked of it once in
    /// the life of this process; it does nothing where that was done before.
    async fn index_tenants(&self, collection: &str) -> Result<(), IndexError> {
        if self.spaces.lock().unwrap_or_else(PoisonError::into_inner).get(collection).is_some_and(|known| known.indexed)
        {
            return Ok(());
        }
        let params = KeywordIndexParamsBuilder::default().is_tenant(true);
        let request = CreateFieldIndexCollectionBuilder::new(collection, TENANT_PARAM, FieldType::Keyword);
        let request = request.field_index_params(params).wait(true);
        self.client.create_field_index(request).await.map_err(refused)?;
        if let Some(known) = self.spaces.lock().unwrap_or_else(PoisonError::into_inner).get_mut(collection) {
            known.indexed = true;
        }
        Ok(())
    }

    fn forget(&self, collection: &str) {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner).remove(collection);
    }
}

#[async_trait]
impl VectorIndex for ServerIndex {
    async fn upsert(&self, collection: &str, space: &Space, points: Vec<Point>) -> Result<(), IndexError> {
        check_name(collection)?;
        check_points(space, &points)?;
        self.ensure(collection, space).await?;
        let mut points = points.into_iter().map(into_struct);
        loop {
            let request: Vec<PointStruct> = points.by_ref().take(REQUEST_POINTS).collect();
            if request.is_empty() {
                return Ok(());
            }
            let request = UpsertPointsBuilder::new(collection, request).wait(true);
            let response = self.client.upsert_points(request).await.map_err(|error| {
                if is_missing(&error) {
                    self.forget(collection);
                }
                refused(error)
            })?;
            let status = response.result.map(|result| result.status());
            if status != Some(UpdateStatus::Completed) {
                return Err(unavailable(format!("the server did not complete the write ({status:?})")));
            }
        }
    }

    async fn search(&self, collection: &str, space: &Space, nearest: Nearest<'_>) -> Result<Vec<Hit>, IndexError> {
        check_name(collection)?;
        check_vector(space, nearest.vector)?;
        let Some(holds) = self.space(collection).await? else { return Ok(Vec::new()) };
        check_space(collection, &holds, space)?;
        if nearest.limit == 0 {
            return Ok(Vec::new());
        }
        let whose = match nearest.tenant {
            // Said to be a keyword: of a text with spaces in it the client would make a search for its words.
            Some(tenant) => Condition::matches(TENANT_PARAM, MatchValue::Keyword(tenant.to_owned())),
            None => Condition::is_empty(TENANT_PARAM),
        };
        let request = QueryPointsBuilder::new(collection)
            .query(Query::new_nearest(nearest.vector.to_vec()))
            .filter(Filter::must([whose]))
            .limit(nearest.limit as u64)
            .with_payload(true);
        match self.client.query(request).await {
            Ok(response) => Ok(response.result.into_iter().filter_map(hit).collect()),
            Err(error) if is_missing(&error) => {
                self.forget(collection);
                Ok(Vec::new())
            }
            Err(error) => Err(refused(error)),
        }
    }

    async fn ready(&self) -> Result<(), BoxError> {
        // A call that needs the key, unlike the server's own health check, and costs the same.
        self.client.collection_exists("caudal-ready").await?;
        Ok(())
    }

    async fn close(&self) {
        // Every write was answered when it was applied: nothing is held back here.
    }
}

/// What is not ours has an empty fingerprint, which no model has.
fn space_of(info: &CollectionInfo) -> Space {
    let config = info.config.as_ref();
    let metadata = |key: &str| config.and_then(|config| config.metadata.get(key)).cloned().map(Value::from);
    let vectors = config.and_then(|config| config.params.as_ref()).and_then(|params| params.vectors_config.as_ref());
    let size = match vectors.and_then(|vectors| vectors.config.as_ref()) {
        Some(Config::Params(params)) => usize::try_from(params.size).unwrap_or(0),
        _ => 0,
    };
    let fingerprint = metadata(FINGERPRINT).and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default();
    Space { fingerprint, dim: size }
}

fn into_struct(point: Point) -> PointStruct {
    PointStruct::new(point.id.to_string(), point.values, Payload::from(point.fields))
}

fn hit(point: ScoredPoint) -> Option<Hit> {
    let Some(PointIdOptions::Uuid(id)) = point.id?.point_id_options else { return None };
    let fields = point.payload.into_iter().map(|(key, value)| (key, value.into())).collect();
    Some(Hit { id: id.parse().ok()?, score: point.score, fields })
}

fn is_missing(error: &QdrantError) -> bool {
    matches!(error, QdrantError::ResponseError { status } if status.code() == Code::NotFound)
}

/// In the terms of the trait. The engine comes back after its own pause, so that a limit is not hammered.
fn refused(error: QdrantError) -> IndexError {
    match error {
        QdrantError::ResourceExhaustedError { status, retry_after_seconds } => unavailable(format!(
            "the server's rate limit is reached, free again in {retry_after_seconds} s: {}",
            status.message()
        )),
        other => unavailable(other),
    }
}
