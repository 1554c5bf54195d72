//! One collection of the embedded index: its header and its qdrant-edge shard.
//!
//! What qdrant-edge 0.7.2 does decides the shape of this file:
//!
//! * opening a shard does not replay its log, so a point is safe only once a `flush` after its `update` has returned;
//! * `flush` panics where it should fail, so it is caught, the points count as not stored and the shard is reopened;
//! * a segment that failed refuses later operations, so a failed `update` reopens the shard as well;
//! * nothing shortens the log, so past a limit all points are copied into a new shard, which replaces the old one.
//!
//! Points of tenants are told apart by a field that is indexed as soon as there is one. A collection without any, as of a
//! service that asks nobody who they are, has no such index and needs no filter.
//!
//! `store`, `optimize` and `rebuild` are called by the owner thread alone; `search` by any thread, beside them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::{fs, io};

use pipeline::{BoxError, Hit, Point, Space, TENANT_PARAM};
use qdrant_edge::{
    Condition, CreateIndex, Distance, EdgeConfig, EdgeOptimizersConfig, EdgeShard, EdgeVectorParams, FieldCondition,
    FieldIndexOperations, Filter, IsEmptyCondition, JsonPath, Match, NamedQuery, PayloadFieldSchema, PayloadSchemaType,
    PointId, PointInsertOperations, PointOperations, PointStruct, PointStructPersisted, QueryEnum, QueryRequest,
    ScoringQuery, ScrollRequest, UpdateOperation, VectorStructPersisted, WalOptions, WithPayloadInterface, WithVector,
};
use serde_json::{Value, json};

use super::space::Header;

/// The only vector of a point has the empty name.
const VECTOR: &str = "";

/// 0 means never build a graph (HNSW): vectors are compared one by one, exactly, 100 000 of 512 values in some 10 ms on one
/// core. Building a graph would stop all writes for half a minute at 30 000 such vectors already; who has millions is better
/// served by a server.
const GRAPH_FROM_KIB: usize = 0;

/// Log files are allocated whole: the default of 32 MiB is a lot for a small collection.
const LOG_FILE_BYTES: usize = 8 << 20;

/// Points copied at once by a rebuild.
const COPY_POINTS: usize = 512;

/// A collection that is open.
pub(super) struct Collection {
    directory: PathBuf,
    space: Space,
    /// Which shard is alive; written by the owner thread alone.
    header: RwLock<Header>,
    /// `None` after a failure, until the shard could be opened again. Readers are searches and the owner; the owner writes
    /// only to take the shard out or put another in.
    shard: RwLock<Option<EdgeShard>>,
}

impl Collection {
    /// Makes a collection for `space` in `directory`. Its header is on the disk before this returns.
    pub(super) fn create(directory: PathBuf, space: &Space) -> Result<Self, BoxError> {
        fs::create_dir_all(&directory)?;
        let header = Header::new(space);
        header.write(&directory)?;
        Self::open(directory, header)
    }

    /// Opens the collection in `directory`; removes what an interrupted rebuild left.
    pub(super) fn open(directory: PathBuf, header: Header) -> Result<Self, BoxError> {
        header.sweep(&directory)?;
        let shard = open_shard(&header.shard(&directory), header.dim)?;
        Ok(Self { directory, space: header.space(), header: RwLock::new(header), shard: RwLock::new(Some(shard)) })
    }

    /// The space it was made for.
    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    /// Whether the shard is open; it is not after a failure that could not be repaired yet.
    pub(super) fn is_open(&self) -> bool {
        self.read().is_some()
    }

    /// Stores points and makes them survive a kill. Of several with one id the last one stays.
    pub(super) fn store(&self, points: Vec<Point>) -> Result<(), BoxError> {
        if !self.is_open() {
            self.reopen()?;
        }
        let stored = self.store_in_shard(points);
        if stored.is_err() {
            self.reopen()?;
        }
        stored
    }

    fn store_in_shard(&self, points: Vec<Point>) -> Result<(), BoxError> {
        if points.iter().any(|point| point.fields.contains_key(TENANT_PARAM)) {
            self.expect_tenants()?;
        }
        let points = points.into_iter().map(into_struct).collect();
        self.guarded(|shard| {
            shard.update(upsert(points))?;
            shard.flush();
            Ok(())
        })
    }

    /// Notes that points of tenants come, and has their field indexed.
    fn expect_tenants(&self) -> Result<(), BoxError> {
        if self.has_tenants() {
            return Ok(());
        }
        self.guarded(index_tenants)?;
        let mut header = self.header.write().unwrap_or_else(PoisonError::into_inner);
        Header { tenants: true, ..header.clone() }.write(&self.directory)?;
        header.tenants = true;
        Ok(())
    }

    fn has_tenants(&self) -> bool {
        self.header.read().unwrap_or_else(PoisonError::into_inner).tenants
    }

    /// The nearest points of a tenant, or of nobody, best first.
    pub(super) fn search(&self, vector: Vec<f32>, limit: usize, tenant: Option<String>) -> Result<Vec<Hit>, BoxError> {
        match (tenant, self.has_tenants()) {
            (Some(tenant), true) => self.query(vector, limit, Some(of_tenant(tenant)?)),
            (Some(_), false) => Ok(Vec::new()),
            (None, true) => self.query(vector, limit, Some(of_nobody()?)),
            (None, false) => {
                let found = self.query(vector.clone(), limit, None)?;
                // It is noted before it is stored: what was found while it was not noted is nobody's.
                if self.has_tenants() { self.query(vector, limit, Some(of_nobody()?)) } else { Ok(found) }
            }
        }
    }

    fn query(&self, vector: Vec<f32>, limit: usize, filter: Option<Filter>) -> Result<Vec<Hit>, BoxError> {
        let shard = self.read();
        let shard = shard.as_ref().ok_or("the collection is being reopened after a failure")?;
        let found = shard.query(QueryRequest {
            prefetches: Vec::new(),
            query: Some(ScoringQuery::Vector(QueryEnum::Nearest(NamedQuery::default_dense(vector)))),
            filter,
            score_threshold: None,
            limit,
            offset: 0,
            params: None,
            with_vector: WithVector::Bool(false),
            with_payload: WithPayloadInterface::Bool(true),
        })?;
        let hit = |point: qdrant_edge::ScoredPoint| {
            let PointId::Uuid(id) = point.id else { return None };
            let fields = point.payload.map(|payload| payload.0.into_iter().collect()).unwrap_or_default();
            Some(Hit { id, score: point.score, fields })
        };
        Ok(found.into_iter().filter_map(hit).collect())
    }

    /// Merges and vacuums segments where that is due; returns whether anything was done. Blocks until it is.
    pub(super) fn optimize(&self) -> Result<bool, BoxError> {
        self.guarded(|shard| {
            let done = shard.optimize()?;
            if done {
                shard.flush();
            }
            Ok(done)
        })
    }

    /// Points stored, roughly: one that was replaced may count twice until it is vacuumed.
    pub(super) fn points(&self) -> usize {
        self.read().as_ref().map_or(0, |shard| shard.info().points_count)
    }

    /// Bytes of the log on the disk.
    pub(super) fn log_bytes(&self) -> u64 {
        folder_bytes(&self.shard_path().join("wal")).unwrap_or(0)
    }

    /// Copies every point into a new shard without a past, and puts it in the place of the old one. Searches go on
    /// meanwhile. A kill at any moment leaves one of the two shards whole and alive.
    pub(super) fn rebuild(&self) -> Result<(), BoxError> {
        let mut header = self.header.read().unwrap_or_else(PoisonError::into_inner).clone();
        header.generation += 1;
        let path = header.shard(&self.directory);
        let copied = self.guarded(|old| {
            let new = open_shard(&path, self.space.dim)?;
            if header.tenants {
                index_tenants(&new)?;
            }
            copy(old, &new)?;
            new.flush();
            Ok(new)
        })?;
        // From here on a restart opens the new shard.
        header.write(&self.directory)?;
        let old = self.swap(Some(copied));
        *self.header.write().unwrap_or_else(PoisonError::into_inner) = header.clone();
        close_shard(old);
        Ok(header.sweep(&self.directory)?)
    }

    /// Makes everything durable and lets go of the files.
    pub(super) fn close(&self) {
        close_shard(self.swap(None));
    }

    fn reopen(&self) -> Result<(), BoxError> {
        close_shard(self.swap(None));
        let shard = open_shard(&self.shard_path(), self.space.dim)?;
        self.swap(Some(shard));
        Ok(())
    }

    /// Runs `work` on the shard; a panic is an error.
    fn guarded<T>(&self, work: impl FnOnce(&EdgeShard) -> Result<T, BoxError>) -> Result<T, BoxError> {
        let shard = self.read();
        let shard = shard.as_ref().ok_or("the collection is closed")?;
        catch_unwind(AssertUnwindSafe(|| work(shard))).unwrap_or_else(|panic| Err(panic_text(&panic).into()))
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<EdgeShard>> {
        self.shard.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn swap(&self, shard: Option<EdgeShard>) -> Option<EdgeShard> {
        std::mem::replace(&mut *self.shard.write().unwrap_or_else(PoisonError::into_inner), shard)
    }

    fn shard_path(&self) -> PathBuf {
        self.header.read().unwrap_or_else(PoisonError::into_inner).shard(&self.directory)
    }
}

fn open_shard(path: &Path, dim: usize) -> Result<EdgeShard, BoxError> {
    fs::create_dir_all(path)?;
    let optimizers =
        EdgeOptimizersConfig { indexing_threshold: Some(GRAPH_FROM_KIB), ..EdgeOptimizersConfig::default() };
    let log = WalOptions { segment_capacity: LOG_FILE_BYTES, ..WalOptions::default() };
    let vector = EdgeVectorParams::builder(dim, Distance::Cosine).build();
    let config = EdgeConfig::builder().vector(VECTOR, vector).optimizers(optimizers).wal_options(log).build();
    // With a config given, an empty folder is as good as a full one: making and opening are the same.
    let opened = catch_unwind(AssertUnwindSafe(|| EdgeShard::load(path, Some(config))));
    Ok(opened.map_err(|panic| panic_text(&panic))??)
}

/// Dropping a shard flushes it, which may panic; what was answered was flushed long before.
fn close_shard(shard: Option<EdgeShard>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(shard))) {
        tracing::error!(error = panic_text(&panic), "a collection could not be flushed while it was closed");
    }
}

fn copy(from: &EdgeShard, to: &EdgeShard) -> Result<(), BoxError> {
    let mut offset = None;
    loop {
        let (records, next) = from.scroll(ScrollRequest {
            offset,
            limit: Some(COPY_POINTS),
            filter: None,
            with_payload: Some(WithPayloadInterface::Bool(true)),
            with_vector: WithVector::Bool(true),
            order_by: None,
        })?;
        let mut points = Vec::with_capacity(records.len());
        for record in records {
            let vector = VectorStructPersisted::from(record.vector.ok_or("a point without a vector")?);
            points.push(PointStructPersisted { id: record.id, vector, payload: record.payload });
        }
        if !points.is_empty() {
            to.update(upsert(points))?;
        }
        if next.is_none() {
            return Ok(());
        }
        offset = next;
    }
}

fn tenant_field() -> Result<JsonPath, BoxError> {
    TENANT_PARAM.parse().map_err(|()| "the tenant's field is no path".into())
}

/// Lets a shard find the points of a tenant without looking at every other one.
fn index_tenants(shard: &EdgeShard) -> Result<(), BoxError> {
    let schema = Some(PayloadFieldSchema::FieldType(PayloadSchemaType::Keyword));
    let create = CreateIndex { field_name: tenant_field()?, field_schema: schema };
    shard.update(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(create)))?;
    shard.flush();
    Ok(())
}

fn of_tenant(tenant: String) -> Result<Filter, BoxError> {
    let is_theirs = FieldCondition::new_match(tenant_field()?, Match::from(tenant));
    Ok(Filter::new_must(Condition::Field(is_theirs)))
}

fn of_nobody() -> Result<Filter, BoxError> {
    let is_empty: IsEmptyCondition = serde_json::from_value(json!({ "is_empty": { "key": TENANT_PARAM } }))?;
    Ok(Filter::new_must(Condition::IsEmpty(is_empty)))
}

fn upsert(points: Vec<PointStructPersisted>) -> UpdateOperation {
    UpdateOperation::PointOperation(PointOperations::UpsertPoints(PointInsertOperations::PointsList(points)))
}

fn into_struct(point: Point) -> PointStructPersisted {
    PointStruct::new(PointId::Uuid(point.id), point.values, Value::Object(point.fields)).into()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the index engine panicked: {}", text.unwrap_or("no message"))
}

fn folder_bytes(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}
