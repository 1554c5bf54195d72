//! Why a model cannot be used.

use std::path::PathBuf;

use super::processor_config::ProcessorError;
use super::runtime::RuntimeError;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// ONNX Runtime is not loaded.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
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
    /// The model file has another hash than the one the config pins.
    #[error("{path} has SHA-256 {found}, but the config pins {pinned}: fetch the right file or correct `sha256`")]
    Pin {
        /// The model file.
        path: PathBuf,
        /// From the config.
        pinned: pipeline::Digest,
        /// Of the file, external data included.
        found: pipeline::Digest,
    },
    /// The graph does not take one image tensor, or no output of it is a vector.
    #[error("{path}: {why}")]
    Graph {
        /// The model file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// The system refused a thread for a session.
    #[error("a thread for the model could not be started")]
    Thread(#[source] std::io::Error),
    /// ONNX Runtime refused the file.
    #[error("{path}: ONNX Runtime cannot use this model")]
    Onnx {
        /// The model file.
        path: PathBuf,
        /// ONNX Runtime's error.
        #[source]
        source: ort::Error,
    },
}
