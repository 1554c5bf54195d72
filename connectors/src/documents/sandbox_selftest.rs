//! Self-test of the sandbox: before a worker loads LibreOffice it tries to connect, to read, to write and to see a
//! secret.
//!
//! All four must fail. It uses the plain means that a compromised engine would try first. That each layer works by
//! itself is shown by the tests, which turn on one at a time.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The environment variable that the supervisor sets before it clears the environment.
pub const SECRET_VARIABLE: &str = "CAUDAL_CANARY";

/// The file in the canary's folder that must not be readable.
pub const SECRET_FILE: &str = "secret";

/// Things outside the sandbox that a worker must not reach.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Canary {
    /// The supervisor listens there while the worker starts.
    pub address: SocketAddr,
    /// A folder with a file `secret` that the worker must not read, and in which it must not write.
    pub folder: PathBuf,
}

/// A way out of the sandbox that the self-test found open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxLeak {
    /// A TCP connection was made.
    Connect,
    /// A file outside was read.
    Read,
    /// A file outside was written.
    Write,
    /// A secret in an environment was visible.
    Environment,
}

/// Timeout of the connection; without a sandbox it succeeds at once.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Tries every way out and returns those that are open.
#[must_use]
pub fn sandbox_leaks(canary: &Canary) -> Vec<SandboxLeak> {
    let mut open = Vec::new();
    if TcpStream::connect_timeout(&canary.address, CONNECT_TIMEOUT).is_ok() {
        open.push(SandboxLeak::Connect);
    }
    if fs::read("/etc/passwd").is_ok() || fs::read(canary.folder.join(SECRET_FILE)).is_ok() {
        open.push(SandboxLeak::Read);
    }
    if fs::write(canary.folder.join(format!("written-{}", std::process::id())), b"x").is_ok() {
        open.push(SandboxLeak::Write);
    }
    if std::env::vars_os().any(|(name, _)| name == SECRET_VARIABLE) || sees_other_environments() {
        open.push(SandboxLeak::Environment);
    }
    open
}

/// The supervisor's environment holds keys, and the kernel shows it to processes of the same user.
fn sees_other_environments() -> bool {
    rustix::process::getppid()
        .is_some_and(|parent| fs::read(format!("/proc/{}/environ", parent.as_raw_nonzero())).is_ok())
}
