//! What `index` and `search` share: the vector of an event, its checks, and the rejection of another model's vectors.

use std::sync::Arc;

use pipeline::{KeyProblem, Payload, Rejection, Space, Vector};

/// Complains about a collection name that is not valid both as a directory and as the name of a remote collection.
pub(super) fn unless_collection(name: &str) -> Option<KeyProblem> {
    let why = pipeline::Token::new(name).err()?;
    let (message, remedy) = (format!("collection name {name:?} {why}"), "rename it, for example \"reports\"".into());
    Some(KeyProblem { key: "collection", message, remedy })
}

pub(super) fn vector_of(payload: &Payload) -> Option<Arc<Vector>> {
    match payload {
        Payload::Vector(vector) => Some(Arc::clone(vector)),
        _ => None,
    }
}

pub(super) fn space_of(vector: &Vector) -> Space {
    Space { fingerprint: vector.fingerprint.to_string(), dim: vector.values.len() }
}

/// Rejects a vector that would make every comparison meaningless: empty, or with a NaN or an infinity in it.
pub(super) fn check_values(vector: &Vector) -> Result<(), Rejection> {
    if vector.values.is_empty() {
        return Err(Rejection::unusable("vector_empty", "the vector is empty"));
    }
    match vector.values.iter().position(|value| !value.is_finite()) {
        Some(place) => {
            Err(Rejection::unusable("vector_not_finite", format!("element {place} of the vector is not finite")))
        }
        None => Ok(()),
    }
}

/// 409: the collection holds another model's vectors, which cannot be compared with this one.
pub(super) fn other_model(collection: &str, holds: &(String, usize), space: &Space) -> Rejection {
    let short = |fingerprint: &str| fingerprint.chars().take(12).collect::<String>();
    let detail = format!(
        "collection {collection:?} holds vectors of model {} with {} dimensions; this one is of model {} with {}: index the \
         images again into a new collection",
        short(&holds.0),
        holds.1,
        short(&space.fingerprint),
        space.dim
    );
    Rejection::new(409, "model_mismatch", detail)
}
