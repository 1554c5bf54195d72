//! What a worker tries from inside its sandbox before it loads the engine: to connect, to read, to write, to see a secret.
//!
//! All four must fail. The means are the plain ones that a compromised engine would use first; that every layer does its part
//! is shown by the tests, which leave each on alone.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::protocol::Canary;

/// The variable that the supervisor sets before it clears the environment.
pub const SECRET_VARIABLE: &str = "CAUDAL_CANARY";

/// The file in the canary's folder that must not be readable.
pub const SECRET_FILE: &str = "secret";

/// A way out of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hole {
    /// A TCP connection was made.
    Connect,
    /// A file outside was read.
    Read,
    /// A file outside was written.
    Write,
    /// The environment holds what it should not.
    Environment,
}

/// How long a connection is waited for: where nothing stops it, it stands at once.
const PATIENCE: Duration = Duration::from_millis(500);

/// Tries all ways out; the ones that are open.
#[must_use]
pub fn holes(canary: &Canary) -> Vec<Hole> {
    let mut open = Vec::new();
    if TcpStream::connect_timeout(&canary.address, PATIENCE).is_ok() {
        open.push(Hole::Connect);
    }
    if fs::read("/etc/passwd").is_ok() || fs::read(canary.folder.join(SECRET_FILE)).is_ok() {
        open.push(Hole::Read);
    }
    if fs::write(canary.folder.join(format!("written-{}", std::process::id())), b"x").is_ok() {
        open.push(Hole::Write);
    }
    if std::env::vars_os().any(|(name, _)| name == SECRET_VARIABLE) || sees_other_environments() {
        open.push(Hole::Environment);
    }
    open
}

/// The supervisor's environment holds keys; the kernel shows it to processes of the same user.
fn sees_other_environments() -> bool {
    rustix::process::getppid()
        .is_some_and(|parent| fs::read(format!("/proc/{}/environ", parent.as_raw_nonzero())).is_ok())
}
