//! What operators may ask the outside for, as traits: models, vector indexes, engines of documents, receivers.
//!
//! Connectors implement them, the assembly hands them over; an operator never sees a connector's own types.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::documents::Converter;
use crate::fault::{BoxError, Rejection};
use crate::payload::{Digest, Image};
use crate::webhook::Caller;

/// Everything an operator may be built from.
#[derive(Clone, Default)]
pub struct Services {
    /// By the name of the `[model.NAME]` section.
    pub models: HashMap<String, Arc<dyn ImageModel>>,
    /// `[index]`, or the embedded one.
    pub index: Option<Arc<dyn VectorIndex>>,
    /// `[office]`: what converts documents, or why nothing does. `None` where no flow asks for it.
    pub converter: Option<Result<Arc<dyn Converter>, Arc<str>>>,
    /// `[webhook]`: what calls receivers of results. `None` where no flow of the config asks for it.
    pub caller: Option<Arc<dyn Caller>>,
    /// Requests that were given up; one for all flows of a process.
    pub cancellations: Arc<crate::engine::Cancellations>,
    /// Events that have ended; one for all flows of a process.
    pub ledger: Arc<crate::Ledger>,
    /// Room for decoded pictures; one for all flows of a process.
    pub pixels: crate::Pixels,
    /// Threads for work that computes; `None` only in tests of operators that do not.
    pub compute: Option<crate::Compute>,
    /// Takes spans; `None` where nobody traces.
    pub spans: Option<Arc<dyn crate::Spans>>,
    /// Where events and records are kept; set by the assembly before any operator is built.
    pub transport: Option<Arc<dyn crate::Transport>>,
}

/// What identifies a model and the vectors it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// Name of the `[model.NAME]` section.
    pub name: Arc<str>,
    /// Length of its vectors.
    pub dim: usize,
    /// SHA-256 over model file and preprocessing, hexadecimal.
    pub fingerprint: Arc<str>,
    /// Sides `(width, height)` that an image is resized to before the crop; decoding to at least twice this loses
    /// nothing that the model could see.
    pub resize_to: (u32, u32),
}

/// Turns pictures into vectors.
#[async_trait]
pub trait ImageModel: Send + Sync {
    /// Identity and shape.
    fn card(&self) -> &ModelCard;

    /// Embeds `b` images into `b` unit vectors of `card().dim` f32, in order.
    ///
    /// One image that yields no finite vector is an inner error and harms no other.
    ///
    /// # Errors
    /// If the inference as a whole failed.
    async fn embed(&self, images: Vec<Arc<Image>>) -> Result<Vec<Result<Vec<f32>, Rejection>>, BoxError>;
}

/// One vector with what is known about it.
#[derive(Clone, Debug)]
pub struct Point {
    /// Deterministic, so that a repeat overwrites itself.
    pub id: uuid::Uuid,
    /// Unit length.
    pub values: Vec<f32>,
    /// A flat JSON object, for example `{"report_id": "r1"}`; [`TENANT_PARAM`](crate::TENANT_PARAM) in it is the tenant whose
    /// searches find the point.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// What a search asks for.
#[derive(Clone, Copy, Debug)]
pub struct Nearest<'a> {
    /// Unit length.
    pub vector: &'a [f32],
    /// Most points wanted.
    pub limit: usize,
    /// Whose points are looked at; `None` for those that belong to no tenant.
    pub tenant: Option<&'a str>,
}

impl<'a> Nearest<'a> {
    /// Of the points that belong to no tenant.
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

/// Why an index did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The collection was made by another model; nothing was written or compared.
    #[error("collection {collection:?} holds vectors of another model")]
    OtherModel {
        /// Which collection.
        collection: String,
        /// What it holds: fingerprint and length of its vectors.
        holds: (String, usize),
    },
    /// The index is out of reach or out of space; later may work.
    #[error("index is unavailable")]
    Unavailable(#[source] BoxError),
}

/// A space of vectors: the model that made them and their length. Stored with the collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Of the model.
    pub fingerprint: String,
    /// Length of every vector.
    pub dim: usize,
}

/// Stores vectors and finds the nearest.
#[async_trait]
pub trait VectorIndex: Send + Sync {
    /// Stores `points`, replacing those with the same id. The collection is made on first use, for `space`.
    /// When this returns, the points survive a kill of the process.
    ///
    /// # Errors
    /// [`IndexError::OtherModel`] if the collection holds another space, [`IndexError::Unavailable`] otherwise.
    async fn upsert(&self, collection: &str, space: &Space, points: Vec<Point>) -> Result<(), IndexError>;

    /// The nearest points by cosine, best first; empty if nothing was ever stored. Points of another tenant are not looked
    /// at, so that they neither show nor take the place of others.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert).
    async fn search(&self, collection: &str, space: &Space, nearest: Nearest<'_>) -> Result<Vec<Hit>, IndexError>;

    /// Whether the index answers: for `/ready`.
    ///
    /// # Errors
    /// What is wrong, for the log.
    async fn ready(&self) -> Result<(), BoxError>;

    /// Syncs and closes; called once, after the last flow has drained.
    async fn close(&self);
}

/// The point id of an image under an owner's name, for example a report: UUID version 5 over tenant, owner and digest. The
/// tenant is empty where there is none.
#[must_use]
pub fn point_id(tenant: &str, owner: &str, image: &Digest) -> uuid::Uuid {
    let name = format!("{tenant}\0{owner}\0{image}");
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes())
}
