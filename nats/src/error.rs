//! Errors of [`connect`](crate::connect()).

use std::path::PathBuf;
use std::time::Duration;

use pipeline::BoxError;

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A key file cannot be read.
    #[error("key file {} cannot be read", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// No server answers at the address, or it refuses our credentials.
    #[error("no connection to the broker at {url}")]
    Refused {
        /// The address, without credentials.
        url: String,
        /// Why connecting failed.
        source: BoxError,
    },
    /// The broker did not answer in time.
    #[error("the broker at {url} did not answer within {limit:?}")]
    TimedOut {
        /// The address, without credentials.
        url: String,
        /// The time limit for connecting.
        limit: Duration,
    },
    /// The server is older than the oldest supported version.
    #[error("nats-server {found} is too old: 2.12 or newer is needed")]
    TooOld {
        /// The server's version.
        found: String,
    },
    /// A stream cannot be created or updated.
    #[error("stream {stream} cannot be created or updated; {remedy}")]
    Stream {
        /// Name of the stream.
        stream: String,
        /// What the operator of the service can do.
        remedy: &'static str,
        /// The broker's error.
        source: BoxError,
    },
    /// The consumer that follows the results stream cannot be created.
    #[error("results cannot be followed")]
    Results(#[source] BoxError),
}
