//! Why an index cannot be opened.

use std::path::PathBuf;

use pipeline::BoxError;

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
        /// The client's error.
        #[source]
        source: BoxError,
    },
    /// `kind` names no kind of index. `IndexSpec::check` reports this before anything is opened.
    #[error("{kind:?} is not a kind of index; use one of: {kinds}")]
    UnknownKind {
        /// From the config.
        kind: String,
        /// The kinds there are.
        kinds: String,
    },
}
