//! The Qdrant index: a server or cluster, reached by gRPC.
//!
//! The model's fingerprint is stored as metadata of the collection (Qdrant 1.16 and later), so every process sees the
//! same. A collection without it was created by another program and is refused. Writes wait until they are applied
//! (`wait = true`), and only `Completed` counts as stored. Everything the server refuses is retried by the engine; ids
//! are deterministic, so a repeated write replaces its points.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pipeline::spec::Secret;
use pipeline::{BoxError, Hit, IndexError, KeyProblem, Nearest, Point, Space, TENANT_PARAM, VectorIndex};
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

use super::checks::{check_name, check_points, check_space, check_vector, unavailable};
use super::error::OpenError;
use super::kind::IndexKind;
use super::spec::IndexSpec;

/// `kind = "qdrant"`.
pub(super) const KIND: IndexKind = IndexKind {
    name: "qdrant",
    keys: &["url", "api_key", "timeout_ms"],
    shared: true,
    is_implied_by: |spec| spec.url.is_some(),
    check,
    open: |spec, _| Ok(std::sync::Arc::new(QdrantIndex::new(spec)?)),
};

/// Metadata key of a collection: the fingerprint of the model whose vectors it holds.
const FINGERPRINT: &str = "caudal_model";

/// Points per request: larger requests gain nothing and may exceed the server's size limit.
const REQUEST_POINTS: usize = 256;

/// Timeout of a call if the config sets none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Collections in the cache: collection names that change with every request must not fill the memory.
const MAX_CACHED_COLLECTIONS: usize = 1024;

/// A client of a Qdrant server. It connects on first use; all callers share the connection.
pub struct QdrantIndex {
    client: Qdrant,
    /// Collections that were looked up; the space of a collection never changes.
    cache: Mutex<HashMap<String, CachedCollection>>,
}

/// What the client remembers of a collection on the server.
struct CachedCollection {
    space: Space,
    /// Whether the server indexes the tenant field.
    tenants_indexed: bool,
}

impl QdrantIndex {
    /// Configures the client; nothing is sent yet.
    ///
    /// # Errors
    /// If `url` is missing or not a URL, or the key cannot be read.
    pub fn new(spec: &IndexSpec) -> Result<Self, OpenError> {
        let url = spec.url.clone().unwrap_or_default();
        let timeout = spec.timeout_ms.map_or(DEFAULT_TIMEOUT, |ms| Duration::from_millis(ms.get()));
        // The compatibility check would print to standard output.
        let mut config = Qdrant::from_url(&url).timeout(timeout).connect_timeout(timeout).skip_compatibility_check();
        let key = spec.api_key.as_ref().map(Secret::read).transpose();
        let key = key.map_err(|source| OpenError::Server { url: url.clone(), source: source.into() })?;
        config.api_key = key.map(|key| key.expose().to_owned());
        let client = config.build().map_err(|source| OpenError::Server { url, source: source.into() })?;
        Ok(Self { client, cache: Mutex::default() })
    }

    /// The collection's space, or `None` if there is no such collection.
    async fn space(&self, collection: &str) -> Result<Option<Space>, IndexError> {
        if let Some(cached) = self.cache().get(collection) {
            return Ok(Some(cached.space.clone()));
        }
        let found = match self.client.collection_info(collection).await {
            Ok(found) => found.result.ok_or_else(|| unavailable("the server sent no collection info"))?,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(into_index_error(error)),
        };
        let space = space_of(&found);
        let mut cache = self.cache();
        if cache.len() >= MAX_CACHED_COLLECTIONS {
            cache.clear();
        }
        let tenants_indexed = found.payload_schema.contains_key(TENANT_PARAM);
        cache.insert(collection.into(), CachedCollection { space: space.clone(), tenants_indexed });
        Ok(Some(space))
    }

    /// Creates the collection unless it exists, and checks that it is of this space.
    async fn ensure(&self, collection: &str, space: &Space) -> Result<(), IndexError> {
        if let Some(stored) = self.space(collection).await? {
            check_space(collection, &stored, space)?;
            return self.index_tenants(collection).await;
        }
        let metadata = HashMap::from([(FINGERPRINT.to_string(), Value::from(space.fingerprint.clone()))]);
        let vectors = VectorParamsBuilder::new(space.dim as u64, Distance::Cosine);
        let request = CreateCollectionBuilder::new(collection).vectors_config(vectors).metadata(metadata);
        let created = self.client.create_collection(request).await;
        // Another process may have created it first, so look at what is there now.
        match (self.space(collection).await?, created) {
            (Some(stored), Ok(_)) if stored.fingerprint.is_empty() => {
                Err(unavailable("the server does not store metadata of collections: Qdrant 1.16 or later is needed"))
            }
            (Some(stored), _) => {
                check_space(collection, &stored, space)?;
                self.index_tenants(collection).await
            }
            (None, Err(error)) => Err(into_index_error(error)),
            (None, Ok(_)) => Err(unavailable("the server created the collection but does not list it")),
        }
    }

    /// Has the server index the tenant field, so that it finds the points of one tenant, or of none, without a scan.
    /// Sent once per process and collection; the server ignores a repeat.
    async fn index_tenants(&self, collection: &str) -> Result<(), IndexError> {
        if self.cache().get(collection).is_some_and(|cached| cached.tenants_indexed) {
            return Ok(());
        }
        let params = KeywordIndexParamsBuilder::default().is_tenant(true);
        let request = CreateFieldIndexCollectionBuilder::new(collection, TENANT_PARAM, FieldType::Keyword);
        let request = request.field_index_params(params).wait(true);
        self.client.create_field_index(request).await.map_err(into_index_error)?;
        if let Some(cached) = self.cache().get_mut(collection) {
            cached.tenants_indexed = true;
        }
        Ok(())
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<String, CachedCollection>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, collection: &str) {
        self.cache().remove(collection);
    }
}

#[async_trait]
impl VectorIndex for QdrantIndex {
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
                into_index_error(error)
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
        let Some(stored) = self.space(collection).await? else { return Ok(Vec::new()) };
        check_space(collection, &stored, space)?;
        if nearest.limit == 0 {
            return Ok(Vec::new());
        }
        let tenant_filter = match nearest.tenant {
            // Explicitly a keyword: the client turns a text with spaces into a full-text match of its words.
            Some(tenant) => Condition::matches(TENANT_PARAM, MatchValue::Keyword(tenant.to_owned())),
            None => Condition::is_empty(TENANT_PARAM),
        };
        let request = QueryPointsBuilder::new(collection)
            .query(Query::new_nearest(nearest.vector.to_vec()))
            .filter(Filter::must([tenant_filter]))
            .limit(nearest.limit as u64)
            .with_payload(true);
        match self.client.query(request).await {
            Ok(response) => Ok(response.result.into_iter().filter_map(hit).collect()),
            Err(error) if is_missing(&error) => {
                self.forget(collection);
                Ok(Vec::new())
            }
            Err(error) => Err(into_index_error(error)),
        }
    }

    async fn ready(&self) -> Result<(), BoxError> {
        // Unlike the server's own health check, this call needs the API key. It costs the same.
        self.client.collection_exists("caudal-ready").await?;
        Ok(())
    }

    async fn close(&self) {
        // Every write was applied before it was answered: nothing is buffered here.
    }
}

/// A collection of another program gets an empty fingerprint, which no model has.
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

/// An error of the client as the trait's. The engine retries after its own pause, so it does not hammer a rate limit.
fn into_index_error(error: QdrantError) -> IndexError {
    match error {
        QdrantError::ResourceExhaustedError { status, retry_after_seconds } => unavailable(format!(
            "the server's rate limit is reached, retry after {retry_after_seconds} s: {}",
            status.message()
        )),
        other => unavailable(other),
    }
}

fn check(spec: &IndexSpec) -> Vec<KeyProblem> {
    let problem = |message: String, remedy: &str| vec![KeyProblem { key: "url", message, remedy: remedy.into() }];
    match &spec.url {
        Some(url) if is_server_address(url) => Vec::new(),
        Some(url) => problem(
            format!("{url:?} is not the address of a server"),
            "write it as http://HOST:6334 (the gRPC port), or https://…",
        ),
        None => problem(
            "a Qdrant index needs the address of its server".into(),
            "add url = \"http://HOST:6334\" (the gRPC port), or use kind = \"embedded\"",
        ),
    }
}

fn is_server_address(url: &str) -> bool {
    let Ok(uri) = url.parse::<tonic::transport::Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
}
