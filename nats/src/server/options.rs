//! Options of the private server.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::spec::NatsSpec;

/// How to run the private server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The `nats-server` program.
    pub program: PathBuf,
    /// Command that runs [`guard()`](crate::server::guard) in the child: usually our own program and its hidden
    /// subcommand. Empty, for tests: the server is started without the lock, and does not end when this process dies.
    pub launcher: Vec<OsString>,
    /// Data directory of the service; the server uses `nats/` in it.
    pub data_dir: PathBuf,
    /// `[nats]`.
    pub spec: NatsSpec,
}
