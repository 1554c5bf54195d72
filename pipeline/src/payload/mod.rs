//! Payloads: bytes as they came in, the parts of a form, or what a stage made: JSON, an image, a vector.
//!
//! A payload is cheap to clone (shared, never copied) and reports how much memory it takes, so that queues can be bounded
//! by bytes. A body above the inline limit travels as a [`Claim`]: its bytes stay in the object store until the stage that
//! needs them runs.

mod content;
mod digest;
mod image;
mod vector;
pub(crate) mod wire_form;

use std::fmt;
use std::sync::Arc;

pub use content::{Body, Claim, Content, Part};
pub use digest::Digest;
pub use image::Image;
pub use vector::Vector;

/// What an event carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Bytes, as they came in or as a stage made them.
    Bytes(Content),
    /// The parts of a form, in order.
    Parts(Arc<[Part]>),
    /// A JSON document.
    Json(Arc<serde_json::Value>),
    /// Decoded pixels.
    Image(Arc<Image>),
    /// An embedding.
    Vector(Arc<Vector>),
}

/// Memory that a JSON document takes: its nodes, keys and texts.
fn json_bytes(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    /// Bytes of a node, with its share of the map or list that holds it.
    const NODE: usize = 48;
    NODE + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(json_bytes).sum(),
        Value::Object(fields) => fields.iter().map(|(key, value)| NODE + key.len() + json_bytes(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// The type of a [`Payload`]: what a stage takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the payloads they stand for")]
pub enum PayloadKind {
    Bytes,
    Parts,
    Json,
    Image,
    Vector,
}

impl fmt::Display for PayloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Parts => "parts",
            Self::Json => "json",
            Self::Image => "image",
            Self::Vector => "vector",
        })
    }
}

impl Payload {
    /// A JSON payload.
    #[must_use]
    pub fn json(value: serde_json::Value) -> Self {
        Self::Json(Arc::new(value))
    }

    /// The payload's type.
    #[must_use]
    pub fn kind(&self) -> PayloadKind {
        match self {
            Self::Bytes(_) => PayloadKind::Bytes,
            Self::Parts(_) => PayloadKind::Parts,
            Self::Json(_) => PayloadKind::Json,
            Self::Image(_) => PayloadKind::Image,
            Self::Vector(_) => PayloadKind::Vector,
        }
    }

    /// Memory that the payload takes while its event waits, in bytes. A body in the object store does not count.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        /// Bytes for headers, ids and small structures around the data.
        const OVERHEAD: usize = 256;
        let content = |content: &Content| match &content.body {
            Body::Inline(bytes) => bytes.len(),
            Body::Claim(_) => 0,
        };
        OVERHEAD
            + match self {
                Self::Bytes(bytes) => content(bytes),
                Self::Parts(parts) => parts.iter().map(|part| OVERHEAD + content(&part.content)).sum(),
                Self::Json(value) => json_bytes(value),
                Self::Image(image) => image.pixels.len(),
                Self::Vector(vector) => vector.values.len() * 4,
            }
    }

    /// Whether its bytes are in the object store, so that they must be fetched before a stage runs. Parts stay in the store:
    /// the stage that splits them emits them one by one.
    #[must_use]
    pub fn needs_fetch(&self) -> bool {
        matches!(self, Self::Bytes(content) if content.claim().is_some())
    }

    /// Every claim the payload refers to.
    #[must_use]
    pub fn claims(&self) -> Vec<Arc<Claim>> {
        match self {
            Self::Bytes(content) => content.claim().cloned().into_iter().collect(),
            Self::Parts(parts) => parts.iter().filter_map(|part| part.content.claim().cloned()).collect(),
            Self::Json(_) | Self::Image(_) | Self::Vector(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Token;

    #[test]
    fn a_claim_weighs_nothing_while_it_waits() {
        let claim = Claim { id: Token::random(), length: 10 << 20, sha256: Digest([0; 32]) };
        let content = Content { media_type: "image/png".into(), body: Body::Claim(Arc::new(claim)) };
        assert_eq!(content.length(), 10 << 20);
        assert!(Payload::Bytes(content).resident_bytes() < 1024);
    }
}
