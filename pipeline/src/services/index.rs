//! Vector indexes: store vectors and find the nearest.

use async_trait::async_trait;

use crate::fault::BoxError;
use crate::payload::Digest;
use crate::registry::Service;

/// One vector with its fields.
#[derive(Clone, Debug)]
pub struct Point {
    /// Deterministic, so that a repeat overwrites itself.
    pub id: uuid::Uuid,
    /// Unit length.
    pub values: Vec<f32>,
    /// A flat JSON object, for example `{"report_id": "r1"}`. Only searches of the tenant in its
    /// [`TENANT_PARAM`](crate::TENANT_PARAM) find the point.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// A search for the nearest points.
#[derive(Clone, Copy, Debug)]
pub struct Nearest<'a> {
    /// Unit length.
    pub vector: &'a [f32],
    /// Most points to return.
    pub limit: usize,
    /// Only points of this tenant are compared; with `None`, points without a tenant.
    pub tenant: Option<&'a str>,
}

impl<'a> Nearest<'a> {
    /// A search among the points without a tenant.
    #[must_use]
    pub fn to(vector: &'a [f32], limit: usize) -> Self {
        Self { vector, limit, tenant: None }
    }
}

/// One answer of a search.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The point's id.
    pub id: uuid::Uuid,
    /// Cosine similarity, `[-1, 1]`, higher is closer.
    pub score: f32,
    /// The point's fields.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// Why an index failed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The collection holds vectors of another model; nothing was written or compared.
    #[error("collection {collection:?} holds vectors of another model")]
    OtherModel {
        /// Which collection.
        collection: String,
        /// Fingerprint and length of the vectors in it.
        holds: (String, usize),
    },
    /// The index is out of reach or out of space; a later attempt may succeed.
    #[error("index is unavailable")]
    Unavailable(#[source] BoxError),
}

/// A space of vectors: the model that made them and their length. Stored with the collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Fingerprint of the model.
    pub fingerprint: String,
    /// Length of every vector.
    pub dim: usize,
}

/// Stores vectors and finds the nearest.
#[async_trait]
pub trait VectorIndex: Send + Sync {
    /// Stores `points`, replacing those with the same id. The collection is made on first use, for `space`.
    /// The points survive a kill of the process once this returns.
    ///
    /// # Errors
    /// [`IndexError::OtherModel`] if the collection holds another space, [`IndexError::Unavailable`] otherwise.
    async fn upsert(&self, collection: &str, space: &Space, points: Vec<Point>) -> Result<(), IndexError>;

    /// The nearest points by cosine, best first; empty if nothing was ever stored. Points of another tenant are not
    /// compared, so that they neither appear nor take the place of others.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert).
    async fn search(&self, collection: &str, space: &Space, nearest: Nearest<'_>) -> Result<Vec<Hit>, IndexError>;

    /// Whether the index answers, for `/ready`.
    ///
    /// # Errors
    /// What is wrong, for the log.
    async fn ready(&self) -> Result<(), BoxError>;

    /// Syncs and closes; called once, after the last flow has drained.
    async fn close(&self);
}

impl Service for dyn VectorIndex {
    const WHAT: &'static str = "vector index";
    const SECTION: &'static str = "index";
    const HAS_DEFAULTS: bool = true;
}

/// The point id of an image of an owner, for example of a report: UUID version 5 over tenant, owner and the image's digest.
/// The tenant is empty where there is none.
#[must_use]
pub fn point_id(tenant: &str, owner: &str, image: &Digest) -> uuid::Uuid {
    let name = format!("{tenant}\0{owner}\0{image}");
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes())
}
