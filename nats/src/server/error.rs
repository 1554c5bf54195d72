//! Errors of starting the private server.

use std::path::PathBuf;
use std::time::Duration;

/// Why the private server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another process has locked the store.
    #[error("data directory {} is in use by another caudal: stop that one, or give another --data-dir", .0.display())]
    InUse(PathBuf),
    /// A file or directory cannot be created or read.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A key file contains no key.
    #[error("{} contains no nkey seed: remove it, and a new one is created", .0.display())]
    Key(PathBuf),
    /// The file system of the store is full.
    #[error(
        "the file system of {} is full: {free} bytes are free and the broker needs {needed} to start; free space there, \
         or give another --data-dir",
        path.display()
    )]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Bytes that the server needs.
        needed: u64,
    },
    /// The program cannot be run.
    #[error("{} cannot be started: run `make setup`, or set CAUDAL_NATS_SERVER", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The program is not one that can be run.
    #[error(
        "{} cannot be run as nats-server: {why}; run `make setup`, or set CAUDAL_NATS_SERVER to the program's path",
        program.display()
    )]
    Program {
        /// The program.
        program: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The server ended instead of starting.
    #[error("{} ended at start ({status}): {log}", program.display())]
    Ended {
        /// The program.
        program: PathBuf,
        /// Exit status or signal.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// The server did not report its port in time.
    #[error("nats-server did not start within {0:?}")]
    TimedOut(Duration),
}
