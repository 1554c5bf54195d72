//! Payloads: bytes as they came in, the parts of a form, or what a stage made: JSON, an image, a vector.
//!
//! A payload is cheap to clone (shared, never copied) and reports how much memory it takes, so that queues can be bounded
//! by bytes. A body above the inline limit travels as a [`Claim`]: its bytes stay in the object store until the stage that
//! needs them runs.

pub(crate) mod stored;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::names::Token;
use crate::pixels::PixelRoom;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a SHA-256 digest: 64 hexadecimal digits are needed");
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

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

/// Decoded pixels: 8-bit RGB, rows from the top, no padding.
pub struct Image {
    /// Columns of `pixels`.
    pub width: u32,
    /// Rows of `pixels`.
    pub height: u32,
    /// `height × width × 3` bytes, `[0, 255]`, sRGB.
    pub pixels: Vec<u8>,
    /// Of the encoded file, so that what is derived from it can be addressed by content.
    pub sha256: Digest,
    /// Its share of the memory for pictures, where it was decoded in this process.
    pub room: Option<PixelRoom>,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}×{})", self.width, self.height)
    }
}

/// An embedding and the space it lives in.
#[derive(Clone, Debug)]
pub struct Vector {
    /// `d` values, finite, unit length.
    pub values: Vec<f32>,
    /// Name of the model in the config.
    pub model: Arc<str>,
    /// SHA-256 of model file and preprocessing: vectors of different fingerprints must not be compared.
    pub fingerprint: Arc<str>,
    /// Of the encoded source.
    pub sha256: Digest,
}

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

    /// Whether it is a picture or a vector that came through the broker as bytes.
    pub(crate) fn is_frozen(&self) -> bool {
        matches!(self, Self::Bytes(content) if stored::is_frozen(&content.media_type))
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

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest(std::array::from_fn(|i| i as u8));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("abc".parse::<Digest>().is_err());
        assert!("zz".repeat(32).parse::<Digest>().is_err());
    }

    #[test]
    fn a_claim_weighs_nothing_while_it_waits() {
        let claim = Claim { id: Token::random(), length: 10 << 20, sha256: Digest([0; 32]) };
        let content = Content { media_type: "image/png".into(), body: Body::Claim(Arc::new(claim)) };
        assert_eq!(content.length(), 10 << 20);
        assert!(Payload::Bytes(content).resident_bytes() < 1024);
    }
}
