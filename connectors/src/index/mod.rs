//! Vector indexes: embedded in the process (qdrant-edge), or a Qdrant server or cluster.
//!
//! Both keep the model of a collection beside its vectors and refuse the vectors of another. Ids come from outside, so that
//! storing again replaces; what was answered is kept.

mod collection;
mod embedded;
mod owner;
mod server;
mod space;
mod spec;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeline::{BoxError, IndexError, Point, Space, Token, VectorIndex};

pub use embedded::{EmbeddedIndex, Limits};
pub use server::ServerIndex;
pub use spec::IndexSpec;

/// Why an index cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory of the embedded index is unusable, or another process has it open.
    #[error("{path}: {why}")]
    Directory {
        /// Which one.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// The server's address or key is unusable.
    #[error("the index server at {url} cannot be used")]
    Server {
        /// From the config.
        url: String,
        /// What the client said.
        #[source]
        source: BoxError,
    },
}

/// Opens the index of `[index]`: the server at `url`, or the embedded one under `data_dir`/index.
///
/// The embedded one reads its collections here, which blocks (milliseconds for each); the server is not contacted yet.
///
/// # Errors
/// See [`OpenError`].
pub fn open(spec: &IndexSpec, data_dir: &Path) -> Result<Arc<dyn VectorIndex>, OpenError> {
    if spec.url.is_some() {
        return Ok(Arc::new(ServerIndex::new(spec)?));
    }
    Ok(Arc::new(EmbeddedIndex::open(&data_dir.join("index"), Limits::default())?))
}

/// A collection's name must be safe as a folder and as a part of an address.
fn check_name(collection: &str) -> Result<(), IndexError> {
    match Token::new(collection) {
        Ok(_) => Ok(()),
        Err(why) => Err(unavailable(format!("the collection name {collection:?} {why}"))),
    }
}

/// Every vector must have the space's length and be finite: what is not would never be found, or spoil a segment.
fn check_points(space: &Space, points: &[Point]) -> Result<(), IndexError> {
    points.iter().try_for_each(|point| check_vector(space, &point.values))
}

fn check_vector(space: &Space, values: &[f32]) -> Result<(), IndexError> {
    if values.len() != space.dim {
        return Err(unavailable(format!("a vector has {} values, the model's have {}", values.len(), space.dim)));
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(unavailable("a vector holds a value that is not finite"));
    }
    Ok(())
}

fn check_space(collection: &str, holds: &Space, wanted: &Space) -> Result<(), IndexError> {
    if holds == wanted {
        return Ok(());
    }
    let holds = (holds.fingerprint.clone(), holds.dim);
    Err(IndexError::OtherModel { collection: collection.into(), holds })
}

fn unavailable(why: impl Into<BoxError>) -> IndexError {
    IndexError::Unavailable(why.into())
}
