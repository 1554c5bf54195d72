//! Embeddings.

use std::sync::Arc;

use super::digest::Digest;

/// An embedding and the space it lives in.
#[derive(Clone, Debug)]
pub struct Vector {
    /// `d` values, finite, unit length.
    pub values: Vec<f32>,
    /// Name of the model in the config.
    pub model: Arc<str>,
    /// SHA-256 of model file and preprocessing: vectors with different fingerprints must not be compared.
    pub fingerprint: Arc<str>,
    /// Digest of the image that it was made of ([`Image::sha256`](super::Image::sha256)).
    pub sha256: Digest,
}
