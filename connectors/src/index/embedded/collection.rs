//! One collection of the embedded index: its header and its qdrant-edge shard.
//!
//! What qdrant-edge 0.7.2 does decides the shape of this file:
//!
//! * opening a shard does not replay its log, so a point is durable only once a `flush` after its `update` has
//!   returned;
//! * `flush` panics where it should fail, so the panic is caught, the points count as not stored and the shard is
//!   reopened;
//! * a segment that failed refuses later operations, so a failed `update` reopens the shard as well;
//! * nothing shortens the log, so past a limit all points are copied into a new shard, which replaces the old one.
//!
//! The tenant field of points is indexed as soon as a point with a tenant is stored. A collection without such points,
//! as in a service without authentication, has no such index and needs no filter.
//!
//! Only the writer thread calls `store`, `optimize` and `rebuild`; any thread may call `search` beside it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use pipeline::{BoxError, Hit, Point, Space, TENANT_PARAM};
use qdrant_edge::{
    EdgeShard, Filter, NamedQuery, PointId, QueryEnum, QueryRequest, ScoringQuery, WithPayloadInterface, WithVector,
};

use super::collection_header::CollectionHeader;
use super::shard::{
    close_shard, copy_points, folder_bytes, index_tenant_field, into_struct, open_shard, panic_text, tenant_filter,
    untenanted_filter, upsert,
};

/// An open collection.
pub(super) struct Collection {
    directory: PathBuf,
    space: Space,
    /// Names the live shard. Only the writer thread changes it.
    header: RwLock<CollectionHeader>,
    /// `None` after a failure, until the shard could be opened again. Searches and the writer thread take the read
    /// lock; the writer thread takes the write lock only to replace the shard.
    shard: RwLock<Option<EdgeShard>>,
}

impl Collection {
    /// Creates a collection for `space` in `directory`. Its header is on the disk before this returns.
    pub(super) fn create(directory: PathBuf, space: &Space) -> Result<Self, BoxError> {
        fs::create_dir_all(&directory)?;
        let header = CollectionHeader::new(space);
        header.write(&directory)?;
        Self::open(directory, header)
    }

    /// Opens the collection in `directory` and removes leftovers of an interrupted rebuild.
    pub(super) fn open(directory: PathBuf, header: CollectionHeader) -> Result<Self, BoxError> {
        header.sweep(&directory)?;
        let shard = open_shard(&header.shard(&directory), header.dim)?;
        Ok(Self { directory, space: header.space(), header: RwLock::new(header), shard: RwLock::new(Some(shard)) })
    }

    /// The space it was created for.
    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    /// False after a failure, until the shard could be reopened.
    pub(super) fn is_open(&self) -> bool {
        self.read().is_some()
    }

    /// Stores points durably: they survive a kill of the process. Of several points with one id the last one stays.
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
            self.prepare_for_tenants()?;
        }
        let points = points.into_iter().map(into_struct).collect();
        self.catch_panics(|shard| {
            shard.update(upsert(points))?;
            shard.flush();
            Ok(())
        })
    }

    /// Indexes the tenant field and records in the header that points may have a tenant.
    fn prepare_for_tenants(&self) -> Result<(), BoxError> {
        if self.has_tenants() {
            return Ok(());
        }
        self.catch_panics(index_tenant_field)?;
        let mut header = self.header.write().unwrap_or_else(PoisonError::into_inner);
        CollectionHeader { tenants: true, ..header.clone() }.write(&self.directory)?;
        header.tenants = true;
        Ok(())
    }

    fn has_tenants(&self) -> bool {
        self.header.read().unwrap_or_else(PoisonError::into_inner).tenants
    }

    /// The nearest points of a tenant, or of those without a tenant, best first.
    pub(super) fn search(&self, vector: Vec<f32>, limit: usize, tenant: Option<String>) -> Result<Vec<Hit>, BoxError> {
        match (tenant, self.has_tenants()) {
            (Some(tenant), true) => self.query(vector, limit, Some(tenant_filter(tenant)?)),
            (Some(_), false) => Ok(Vec::new()),
            (None, true) => self.query(vector, limit, Some(untenanted_filter()?)),
            (None, false) => {
                let found = self.query(vector.clone(), limit, None)?;
                // The header says so before the first such point is stored: if it still does not, no hit has a tenant.
                if self.has_tenants() { self.query(vector, limit, Some(untenanted_filter()?)) } else { Ok(found) }
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

    /// Merges and vacuums segments that need it; returns whether anything was done. Blocks until it is.
    pub(super) fn optimize(&self) -> Result<bool, BoxError> {
        self.catch_panics(|shard| {
            let done = shard.optimize()?;
            if done {
                shard.flush();
            }
            Ok(done)
        })
    }

    /// Points stored, approximately: a replaced point may count twice until it is vacuumed.
    pub(super) fn points(&self) -> usize {
        self.read().as_ref().map_or(0, |shard| shard.info().points_count)
    }

    /// Bytes of the write-ahead log on the disk.
    pub(super) fn log_bytes(&self) -> u64 {
        folder_bytes(&self.shard_path().join("wal")).unwrap_or(0)
    }

    /// Copies every point into a new shard with an empty log and replaces the old one by it. Searches go on meanwhile.
    /// A kill at any moment leaves one of the two shards complete and live.
    pub(super) fn rebuild(&self) -> Result<(), BoxError> {
        let mut header = self.header.read().unwrap_or_else(PoisonError::into_inner).clone();
        header.generation += 1;
        let path = header.shard(&self.directory);
        let copied = self.catch_panics(|old| {
            let new = open_shard(&path, self.space.dim)?;
            if header.tenants {
                index_tenant_field(&new)?;
            }
            copy_points(old, &new)?;
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

    /// Flushes the shard and closes its files.
    pub(super) fn close(&self) {
        close_shard(self.swap(None));
    }

    fn reopen(&self) -> Result<(), BoxError> {
        close_shard(self.swap(None));
        let shard = open_shard(&self.shard_path(), self.space.dim)?;
        self.swap(Some(shard));
        Ok(())
    }

    /// Runs `work` on the shard and returns a panic as an error.
    fn catch_panics<T>(&self, work: impl FnOnce(&EdgeShard) -> Result<T, BoxError>) -> Result<T, BoxError> {
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
