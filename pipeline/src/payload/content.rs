//! Bytes with a media type, inline or by reference into the object store.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::names::Token;

/// A reference to a body in the object store, because it is too large to travel inside its event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Name of the object, given by the store.
    pub id: Token,
    /// Exact length in bytes.
    pub length: u64,
    /// Digest of the whole object; a reader compares it before it uses a byte.
    pub sha256: Digest,
}

/// The bytes of a [`Content`], here or in the object store.
#[derive(Clone, Debug)]
pub enum Body {
    /// The bytes themselves.
    Inline(Bytes),
    /// A reference; the engine fetches it before the stage that needs the bytes.
    Claim(Arc<Claim>),
}

/// Bytes with a media type, sent by a client or made by a stage.
#[derive(Clone, Debug)]
pub struct Content {
    /// For example `image/jpeg`. Declared by the sender, not verified.
    pub media_type: Arc<str>,
    /// The bytes, or a reference to them.
    pub body: Body,
}

impl Content {
    /// Content that holds its bytes.
    #[must_use]
    pub fn inline(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        Self { media_type: media_type.into(), body: Body::Inline(bytes.into()) }
    }

    /// JSON text as content.
    #[must_use]
    pub fn json(value: &serde_json::Value) -> Self {
        Self::inline("application/json", value.to_string())
    }

    /// Length of the bytes, wherever they are.
    #[must_use]
    pub fn length(&self) -> u64 {
        match &self.body {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::Claim(claim) => claim.length,
        }
    }

    /// The claim, if the bytes are in the object store.
    #[must_use]
    pub fn claim(&self) -> Option<&Arc<Claim>> {
        match &self.body {
            Body::Inline(_) => None,
            Body::Claim(claim) => Some(claim),
        }
    }
}

/// One part of a multipart body, or one data URI of a JSON body.
#[derive(Clone, Debug)]
pub struct Part {
    /// The part's field name.
    pub name: Arc<str>,
    /// As the client sent it: shown to people, never used as a path.
    pub file_name: Option<Arc<str>>,
    /// The part's bytes.
    pub content: Content,
}
