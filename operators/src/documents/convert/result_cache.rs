//! Result cache: converted files by the digest of the document and the parameters.

use bytes::Bytes;
use pipeline::Digest;
use pipeline::documents::Format;
use sha2::{Digest as _, Sha256};

use super::parameters::Parameters;

/// Converted files, by the key of the conversion.
pub(super) type Results = moka::sync::Cache<Digest, Vec<Bytes>>;

/// The digest of a document, its format and the parameters.
pub(super) fn key_of(bytes: &Bytes, from: Format, parameters: &Parameters) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update(format!("{from} {} {:?}\0", parameters.to, parameters.options).as_bytes());
    hasher.update(bytes);
    Digest(hasher.finalize().into())
}
