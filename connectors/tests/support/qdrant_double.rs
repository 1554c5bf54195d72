//! A double of a Qdrant server: the gRPC methods that the index uses, served by the embedded index.
//!
//! Requests and responses are the real protobuf messages over a real HTTP/2 connection. Other methods answer
//! `Unimplemented`, as in tonic.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use ::qdrant_client::qdrant::{self, *};
use connectors::index::{EmbeddedIndex, Limits};
use pipeline::{Nearest, Point, Space, TENANT_PARAM, VectorIndex};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// A running double. Stops when dropped.
pub struct QdrantDouble {
    /// For `[index] url`.
    pub url: String,
    /// Its data, and switches that make it misbehave.
    pub state: Arc<State>,
    server: JoinHandle<()>,
}

/// Data and switches of the double.
pub struct State {
    engine: EmbeddedIndex,
    collections: Mutex<HashMap<String, CreateCollection>>,
    /// Every call answers this while it is set.
    pub refuse: Mutex<Option<Status>>,
    /// Writes answer this status instead of `Completed` while it is set.
    pub write_status: Mutex<Option<UpdateStatus>>,
    /// Whether the metadata of new collections is dropped, as servers before 1.16 do.
    pub without_metadata: Mutex<bool>,
    /// `api-key` of the last call.
    pub last_key: Mutex<Option<String>>,
    /// Points of each write, in order.
    pub writes: Mutex<Vec<usize>>,
}

impl QdrantDouble {
    /// Serves on a free loopback port; stores its points in `directory`.
    pub async fn start(directory: &Path) -> Self {
        let limits = Limits { free_bytes: 0, ..Limits::default() };
        let state = Arc::new(State {
            engine: EmbeddedIndex::open(directory, limits).unwrap(),
            collections: Mutex::default(),
            refuse: Mutex::default(),
            write_status: Mutex::default(),
            without_metadata: Mutex::default(),
            last_key: Mutex::default(),
            writes: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let router = tonic::transport::Server::builder()
            .add_service(Named::<0>(Arc::clone(&state)))
            .add_service(Named::<1>(Arc::clone(&state)));
        let server = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
        Self { url, state, server }
    }

    /// Deletes a collection, as another client could.
    pub fn delete(&self, collection: &str) {
        self.state.collections.lock().unwrap().remove(collection);
    }
}

impl Drop for QdrantDouble {
    fn drop(&mut self) {
        self.server.abort();
    }
}

const SERVICES: [&str; 2] = ["qdrant.Collections", "qdrant.Points"];

/// The double under one of its service names.
#[derive(Clone)]
struct Named<const SERVICE: usize>(Arc<State>);

impl<const SERVICE: usize> NamedService for Named<SERVICE> {
    const NAME: &'static str = SERVICES[SERVICE];
}

impl<const SERVICE: usize> Service<http::Request<Body>> for Named<SERVICE> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let state = Arc::clone(&self.0);
        Box::pin(async move { Ok(dispatch(state, request).await) })
    }
}

async fn dispatch(state: Arc<State>, request: http::Request<Body>) -> http::Response<Body> {
    let key = request.headers().get("api-key").and_then(|key| key.to_str().ok()).map(str::to_string);
    *state.last_key.lock().unwrap() = key;
    let refused = state.refuse.lock().unwrap().clone();
    if let Some(status) = refused {
        return status.into_http();
    }
    match request.uri().path().to_string().as_str() {
        "/qdrant.Collections/Get" => unary(request, move |message| get(state.clone(), message)).await,
        "/qdrant.Collections/Create" => unary(request, move |message| create(state.clone(), message)).await,
        "/qdrant.Collections/CollectionExists" => unary(request, move |message| exists(state.clone(), message)).await,
        "/qdrant.Points/Upsert" => unary(request, move |message| upsert(state.clone(), message)).await,
        "/qdrant.Points/CreateFieldIndex" => unary(request, move |message| index_field(state.clone(), message)).await,
        "/qdrant.Points/Query" => unary(request, move |message| query(state.clone(), message)).await,
        other => Status::unimplemented(other).into_http(),
    }
}

async fn unary<M, A, F>(request: http::Request<Body>, handle: impl Fn(M) -> F) -> http::Response<Body>
where
    M: prost::Message + Default + Send + 'static,
    A: prost::Message + Send + 'static,
    F: Future<Output = Result<A, Status>> + Send,
{
    let service = tower::service_fn(|request: Request<M>| {
        let answer = handle(request.into_inner());
        async move { answer.await.map(Response::new) }
    });
    Grpc::new(ProstCodec::<A, M>::default()).unary(service, request).await
}

fn not_found(collection: &str) -> Status {
    Status::not_found(format!("Not found: Collection `{collection}` doesn't exist!"))
}

impl State {
    fn collection(&self, collection: &str) -> Result<CreateCollection, Status> {
        self.collections.lock().unwrap().get(collection).cloned().ok_or_else(|| not_found(collection))
    }
}

/// The server does not check models, which is the client's part; it does check lengths.
fn space_of(collection: &CreateCollection) -> Space {
    let config = collection.vectors_config.as_ref().and_then(|vectors| vectors.config.as_ref());
    let Some(vectors_config::Config::Params(params)) = config else { panic!("one unnamed vector per point") };
    assert_eq!(params.distance(), Distance::Cosine);
    Space { fingerprint: "double".into(), dim: params.size as usize }
}

async fn get(state: Arc<State>, request: GetCollectionInfoRequest) -> Result<GetCollectionInfoResponse, Status> {
    let created = state.collection(&request.collection_name)?;
    let params = CollectionParams { vectors_config: created.vectors_config, ..Default::default() };
    let config = CollectionConfig { params: Some(params), metadata: created.metadata, ..Default::default() };
    let info = CollectionInfo { config: Some(config), ..Default::default() };
    Ok(GetCollectionInfoResponse { result: Some(info), ..Default::default() })
}

async fn create(state: Arc<State>, mut request: CreateCollection) -> Result<CollectionOperationResponse, Status> {
    if *state.without_metadata.lock().unwrap() {
        request.metadata.clear();
    }
    let mut collections = state.collections.lock().unwrap();
    if collections.contains_key(&request.collection_name) {
        return Err(Status::already_exists("the collection already exists"));
    }
    collections.insert(request.collection_name.clone(), request);
    Ok(CollectionOperationResponse { result: true, ..Default::default() })
}

async fn exists(state: Arc<State>, request: CollectionExistsRequest) -> Result<CollectionExistsResponse, Status> {
    let exists = state.collection(&request.collection_name).is_ok();
    Ok(CollectionExistsResponse { result: Some(CollectionExists { exists }), ..Default::default() })
}

async fn upsert(state: Arc<State>, request: UpsertPoints) -> Result<PointsOperationResponse, Status> {
    assert_eq!(request.wait, Some(true), "writes must wait until they are applied");
    let collection = state.collection(&request.collection_name)?;
    let points: Vec<Point> = request.points.into_iter().map(point).collect();
    state.writes.lock().unwrap().push(points.len());
    let written = state.engine.upsert(&request.collection_name, &space_of(&collection), points).await;
    written.map_err(|error| Status::internal(error.to_string()))?;
    let status = state.write_status.lock().unwrap().unwrap_or(UpdateStatus::Completed);
    let result = UpdateResult { status: status.into(), ..Default::default() };
    Ok(PointsOperationResponse { result: Some(result), ..Default::default() })
}

async fn index_field(
    state: Arc<State>,
    request: CreateFieldIndexCollection,
) -> Result<PointsOperationResponse, Status> {
    state.collection(&request.collection_name)?;
    assert_eq!((request.field_name.as_str(), request.field_type()), (TENANT_PARAM, FieldType::Keyword));
    let result = UpdateResult { status: UpdateStatus::Completed.into(), ..Default::default() };
    Ok(PointsOperationResponse { result: Some(result), ..Default::default() })
}

/// The tenant of a filter; the two filters by tenant are the only ones served.
fn tenant_of(filter: Option<Filter>) -> Result<Option<String>, Status> {
    let wrong = || Status::invalid_argument("only a filter by tenant is served");
    let condition = filter.and_then(|filter| filter.must.into_iter().next()?.condition_one_of).ok_or_else(wrong)?;
    match condition {
        condition::ConditionOneOf::IsEmpty(empty) if empty.key == TENANT_PARAM => Ok(None),
        condition::ConditionOneOf::Field(field) if field.key == TENANT_PARAM => {
            match field.r#match.and_then(|wanted| wanted.match_value) {
                Some(r#match::MatchValue::Keyword(tenant)) => Ok(Some(tenant)),
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

async fn query(state: Arc<State>, request: QueryPoints) -> Result<QueryResponse, Status> {
    let collection = state.collection(&request.collection_name)?;
    let Some(query::Variant::Nearest(input)) = request.query.and_then(|query| query.variant) else {
        return Err(Status::invalid_argument("only nearest is served"));
    };
    let Some(vector_input::Variant::Dense(vector)) = input.variant else {
        return Err(Status::invalid_argument("only dense vectors are served"));
    };
    let limit = request.limit.unwrap_or(10) as usize;
    let tenant = tenant_of(request.filter)?;
    let nearest = Nearest { vector: &vector.data, limit, tenant: tenant.as_deref() };
    let found = state.engine.search(&request.collection_name, &space_of(&collection), nearest).await;
    let found = found.map_err(|error| Status::internal(error.to_string()))?;
    let scored = |hit: pipeline::Hit| ScoredPoint {
        id: Some(hit.id.to_string().into()),
        score: hit.score,
        payload: hit.fields.into_iter().map(|(key, value)| (key, value.into())).collect(),
        ..Default::default()
    };
    Ok(QueryResponse { result: found.into_iter().map(scored).collect(), ..Default::default() })
}

fn point(point: PointStruct) -> Point {
    let Some(point_id::PointIdOptions::Uuid(id)) = point.id.and_then(|id| id.point_id_options) else {
        panic!("ids are UUIDs")
    };
    let vectors = point.vectors.and_then(|vectors| vectors.vectors_options);
    let Some(vectors::VectorsOptions::Vector(qdrant::Vector { vector: Some(vector::Vector::Dense(dense)), .. })) =
        vectors
    else {
        panic!("one dense vector per point")
    };
    let fields = point.payload.into_iter().map(|(key, value)| (key, value.into())).collect();
    Point { id: id.parse().unwrap(), values: dense.data, fields }
}
