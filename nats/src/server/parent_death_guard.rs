//! What runs in the child before it becomes nats-server: dies with its parent, and owns the store alone.
//!
//! The parent starts its own program with a hidden subcommand; [`guard`] asks the kernel for SIGTERM when the parent's
//! thread ends, locks the store, lets the lock survive the `exec`, and becomes the server. No `unsafe`, no code between
//! `fork` and `exec` of the parent.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// Exit status when another process has locked the store.
pub const LOCKED: u8 = 75;
/// Exit status when the parent was gone before its death could be watched.
const ORPHANED: u8 = 76;
/// Exit status when anything else failed.
const FAILED: u8 = 77;

/// Why the child did not become nats-server.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The arguments are not those that the parent gives.
    #[error("expected: PARENT_PID LOCK_FILE PROGRAM [ARGUMENT...]")]
    Usage,
    /// The parent was gone already.
    #[error("the process that started this one is gone")]
    Orphaned,
    /// Another process owns the store.
    #[error("{} is locked by another process", .0.display())]
    Locked(PathBuf),
    /// The kernel refused something.
    #[error("{what} failed")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

impl GuardError {
    /// The status to exit with: the parent knows what it means.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Locked(_) => LOCKED,
            Self::Orphaned => ORPHANED,
            Self::Usage | Self::System { .. } => FAILED,
        }
    }
}

/// Becomes `PROGRAM`, given `PARENT_PID LOCK_FILE PROGRAM [ARGUMENT...]`. Returns only if that fails: print the error
/// and exit with its [`exit_code`](GuardError::exit_code).
///
/// # Errors
/// If the parent is gone, the store is locked, or the program cannot be run.
pub fn guard(mut arguments: impl Iterator<Item = OsString>) -> Result<Infallible, GuardError> {
    let parent: u32 = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()).ok_or(GuardError::Usage)?;
    let lock_file = PathBuf::from(arguments.next().ok_or(GuardError::Usage)?);
    let program = arguments.next().ok_or(GuardError::Usage)?;
    let failed = |what| move |source: std::io::Error| GuardError::System { what, source };
    die_with(parent)?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_file)
        .map_err(failed("opening the lock file"))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(GuardError::Locked(lock_file)),
        Err(error) => return Err(failed("locking")(error.into())),
    }
    fcntl_setfd(&lock, FdFlags::empty()).map_err(|error| failed("handing on the lock")(error.into()))?;
    let error = Command::new(program).args(arguments).exec();
    Err(failed("starting nats-server")(error))
}

/// The signal follows the thread that started us; `exec` keeps the wish, and the parent may have died before it.
#[cfg(target_os = "linux")]
fn die_with(parent: u32) -> Result<(), GuardError> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| GuardError::System { what: "watching the parent", source: error.into() })?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) { Ok(()) } else { Err(GuardError::Orphaned) }
}

/// Elsewhere the lock alone tells of a server that was left behind.
#[cfg(not(target_os = "linux"))]
fn die_with(_parent: u32) -> Result<(), GuardError> {
    Ok(())
}
