//! Errors of [`connect`](crate::connect()).

use std::path::PathBuf;
use std::time::Duration;

use pipeline::BoxError;
use pipeline::spec::ByteSize;

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
    /// The broker does not list its streams.
    #[error("the broker's streams cannot be listed")]
    Streams(#[source] BoxError),
    /// The streams do not fit into the disk that the broker may use.
    #[error(
        "the broker's streams would reserve {reserved}, more than its disk limit{}: {streams}; raise max_file of [nats] to at \
         least {reserved} (of a broker with a url: its own limit), lower backlog.bytes of flows or the …_max_bytes of \
         [nats], or remove queues that are not declared with `caudal prune`",
        limit.map(|limit| format!(" of {limit}")).unwrap_or_default()
    )]
    NoRoom {
        /// Sum of all bounds: those that are declared, and those of other streams.
        reserved: ByteSize,
        /// `[nats] max_file`, if it is set.
        limit: Option<ByteSize>,
        /// Each stream with its bound, largest first.
        streams: String,
    },
    /// The consumer that follows the results stream cannot be created.
    #[error("results cannot be followed")]
    Results(#[source] BoxError),
}
