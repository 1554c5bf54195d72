//! The qdrant-edge shard of a collection: opening, closing and copying it, and the operations and filters it is given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::{fs, io};

use pipeline::{BoxError, Point, TENANT_PARAM};
use qdrant_edge::{
    Condition, CreateIndex, Distance, EdgeConfig, EdgeOptimizersConfig, EdgeShard, EdgeVectorParams, FieldCondition,
    FieldIndexOperations, Filter, IsEmptyCondition, JsonPath, Match, PayloadFieldSchema, PayloadSchemaType, PointId,
    PointInsertOperations, PointOperations, PointStruct, PointStructPersisted, ScrollRequest, UpdateOperation,
    VectorStructPersisted, WalOptions, WithPayloadInterface, WithVector,
};
use serde_json::{Value, json};

/// A point has one vector, with the empty name.
const VECTOR: &str = "";

/// 0 means that no HNSW graph is ever built: a search compares every vector exactly, 100 000 of 512 values in some 10
/// ms on one core. Building a graph would stop all writes for half a minute at 30 000 such vectors already; millions of
/// vectors need a Qdrant server.
const GRAPH_FROM_KIB: usize = 0;

/// Log files are allocated at full size: the default of 32 MiB is a lot for a small collection.
const LOG_FILE_BYTES: usize = 8 << 20;

/// Points that a rebuild copies at once.
const COPY_POINTS: usize = 512;

pub(super) fn open_shard(path: &Path, dim: usize) -> Result<EdgeShard, BoxError> {
    fs::create_dir_all(path)?;
    let optimizers =
        EdgeOptimizersConfig { indexing_threshold: Some(GRAPH_FROM_KIB), ..EdgeOptimizersConfig::default() };
    let log = WalOptions { segment_capacity: LOG_FILE_BYTES, ..WalOptions::default() };
    let vector = EdgeVectorParams::builder(dim, Distance::Cosine).build();
    let config = EdgeConfig::builder().vector(VECTOR, vector).optimizers(optimizers).wal_options(log).build();
    // With a config, `load` creates the shard in an empty folder and opens it in any other.
    let opened = catch_unwind(AssertUnwindSafe(|| EdgeShard::load(path, Some(config))));
    Ok(opened.map_err(|panic| panic_text(&panic))??)
}

/// Dropping a shard flushes it, which may panic. Points that were answered are flushed already.
pub(super) fn close_shard(shard: Option<EdgeShard>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(shard))) {
        tracing::error!(error = panic_text(&panic), "a collection could not be flushed while closing");
    }
}

pub(super) fn copy_points(from: &EdgeShard, to: &EdgeShard) -> Result<(), BoxError> {
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
    TENANT_PARAM.parse().map_err(|()| "the tenant field is not a JSON path".into())
}

/// Builds the index that finds the points of one tenant without a scan of all points.
pub(super) fn index_tenant_field(shard: &EdgeShard) -> Result<(), BoxError> {
    let schema = Some(PayloadFieldSchema::FieldType(PayloadSchemaType::Keyword));
    let create = CreateIndex { field_name: tenant_field()?, field_schema: schema };
    shard.update(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(create)))?;
    shard.flush();
    Ok(())
}

pub(super) fn tenant_filter(tenant: String) -> Result<Filter, BoxError> {
    let condition = FieldCondition::new_match(tenant_field()?, Match::from(tenant));
    Ok(Filter::new_must(Condition::Field(condition)))
}

pub(super) fn untenanted_filter() -> Result<Filter, BoxError> {
    let is_empty: IsEmptyCondition = serde_json::from_value(json!({ "is_empty": { "key": TENANT_PARAM } }))?;
    Ok(Filter::new_must(Condition::IsEmpty(is_empty)))
}

pub(super) fn upsert(points: Vec<PointStructPersisted>) -> UpdateOperation {
    UpdateOperation::PointOperation(PointOperations::UpsertPoints(PointInsertOperations::PointsList(points)))
}

pub(super) fn into_struct(point: Point) -> PointStructPersisted {
    PointStruct::new(PointId::Uuid(point.id), point.values, Value::Object(point.fields)).into()
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the index engine panicked: {}", text.unwrap_or("no message"))
}

pub(super) fn folder_bytes(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}
