//! Image models: ONNX graphs run by ONNX Runtime, with the preprocessing their authors published.
//!
//! [`runtime::load`] comes first, once per process; then [`load`] makes a model of a `[model.NAME]` section.

mod files;
mod onnx;
mod output;
mod preprocess;
mod processor_config;
pub mod runtime;
mod session;
mod spec;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeline::{Compute, ImageModel};

pub use onnx::OnnxModel;
pub use preprocess::{Filter, Preprocessing, Resize};
pub use processor_config::ProcessorError;
pub use spec::ModelSpec;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// ONNX Runtime is not there.
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
    /// A file is missing, unreadable, or not what it should be.
    #[error("{path}: {why}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// The preprocessing cannot be reproduced.
    #[error("{path}")]
    Processor {
        /// The `preprocessor_config.json`.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ProcessorError,
    },
    /// The file differs from the one that was pinned.
    #[error("{path} has SHA-256 {found}, but the config pins {pinned}: fetch the right file or correct `sha256`")]
    Pin {
        /// The model file.
        path: PathBuf,
        /// From the config.
        pinned: pipeline::Digest,
        /// Of the file, external data included.
        found: pipeline::Digest,
    },
    /// The graph does not take one image tensor or gives nothing that is a vector.
    #[error("{path}: {why}")]
    Graph {
        /// The model file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// The machine gave no thread for a session.
    #[error("a thread for the model could not be started")]
    Thread(#[source] std::io::Error),
    /// ONNX Runtime refused the file.
    #[error("{path}: ONNX Runtime cannot use this model")]
    Onnx {
        /// The model file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: ort::Error,
    },
}

/// Loads the model of `[model.NAME]`: reads and hashes its files, opens its sessions and runs each once.
///
/// Blocks for as long as that takes (a second per 500 MB or so): call it before serving, or on a blocking thread.
/// A relative `source` is taken from `base`. Images are resized and normalised on `compute`.
///
/// # Errors
/// If the runtime is not loaded, a file is missing or differs from its pin, or the model is not an image embedder.
pub fn load(name: &str, spec: &ModelSpec, base: &Path, compute: &Compute) -> Result<Arc<dyn ImageModel>, ModelError> {
    Ok(Arc::new(OnnxModel::load(name, spec, base, compute)?))
}
