//! Checks that every index makes before it reads or writes: collection name, vector length and values, model.

use pipeline::{BoxError, IndexError, Point, Space, Token};

/// A collection name must be safe as a folder name and as a part of a URL.
pub(super) fn check_name(collection: &str) -> Result<(), IndexError> {
    match Token::new(collection) {
        Ok(_) => Ok(()),
        Err(why) => Err(unavailable(format!("the collection name {collection:?} {why}"))),
    }
}

/// Every vector must have the space's length and finite values: others would never be found, or damage a segment.
pub(super) fn check_points(space: &Space, points: &[Point]) -> Result<(), IndexError> {
    points.iter().try_for_each(|point| check_vector(space, &point.values))
}

pub(super) fn check_vector(space: &Space, values: &[f32]) -> Result<(), IndexError> {
    if values.len() != space.dim {
        return Err(unavailable(format!("a vector has {} values, the model's have {}", values.len(), space.dim)));
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(unavailable("a vector holds a value that is not finite"));
    }
    Ok(())
}

/// A collection takes vectors of the model it was created for and no others.
pub(super) fn check_space(collection: &str, stored: &Space, wanted: &Space) -> Result<(), IndexError> {
    if stored == wanted {
        return Ok(());
    }
    let holds = (stored.fingerprint.clone(), stored.dim);
    Err(IndexError::OtherModel { collection: collection.into(), holds })
}

pub(super) fn unavailable(why: impl Into<BoxError>) -> IndexError {
    IndexError::Unavailable(why.into())
}
