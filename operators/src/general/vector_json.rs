//! A vector as JSON: `{"embedding", "dim", "model"}`.

use pipeline::{Content, Vector};
use serde::Serialize;

/// `embedding` holds `dim` numbers, each f32 in its shortest form that parses back to the same value.
pub(super) fn vector_content(vector: &Vector) -> Content {
    #[derive(Serialize)]
    struct Embedding<'v> {
        embedding: &'v [f32],
        dim: usize,
        model: &'v str,
    }
    let json = Embedding { embedding: &vector.values, dim: vector.values.len(), model: &vector.model };
    let text = serde_json::to_vec(&json).expect("numbers and text always serialize");
    Content::inline("application/json", text)
}
