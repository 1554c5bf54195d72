//! What defines a source of models: which `source` values it takes, and how it is checked and read.

use std::path::{Path, PathBuf};

use pipeline::{Digest, KeyProblem};

use super::error::ModelError;
use super::preprocess::Preprocessing;
use super::spec::ModelSpec;

/// One kind of value of `[model.NAME] source`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModelSource {
    /// How users write it, for messages.
    pub(super) notation: &'static str,
    /// Whether the section's `source` is of this kind.
    pub(super) takes: fn(&ModelSpec) -> bool,
    /// What is wrong with the section. No I/O.
    pub(super) check: fn(&ModelSpec) -> Vec<KeyProblem>,
    /// Reads the model; a relative path is taken from the given folder. Blocks.
    pub(super) read: fn(&ModelSpec, &Path) -> Result<ModelParts, ModelError>,
}

/// A model that was read and not loaded yet.
#[derive(Debug)]
pub(super) struct ModelParts {
    /// For messages, and the file itself unless there are `bytes`.
    pub(super) path: PathBuf,
    /// The ONNX graph of a model that is compiled in.
    pub(super) bytes: Option<&'static [u8]>,
    /// SHA-256 of the model, external data included.
    pub(super) digest: Digest,
    /// What happens to an image before inference.
    pub(super) preprocessing: Preprocessing,
}
