//! Parent-death guard: runs in the child process before it becomes nats-server, so that the server ends with its parent
//! and has the store for itself.
//!
//! The parent starts its own program with a hidden subcommand. [`guard`] asks the kernel for SIGTERM when the parent's
//! thread ends, locks the store, keeps the lock open across `exec`, and executes the server. This needs no `unsafe`,
//! and no code between `fork` and `exec` of the parent.

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
/// Exit status when the parent had ended before its death could be watched.
const ORPHANED: u8 = 76;
/// Exit status when anything else failed.
const FAILED: u8 = 77;

/// Why the child did not become nats-server.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The arguments are not those that the parent passes.
    #[error("expected: PARENT_PID LOCK_FILE PROGRAM [ARGUMENT...]")]
    Usage,
    /// The parent has ended already.
    #[error("the process that started this one has ended")]
    Orphaned,
    /// Another process has locked the store.
    #[error("{} is locked by another process", .0.display())]
    Locked(PathBuf),
    /// A system call failed.
    #[error("{what} failed")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },
}

impl GuardError {
    /// The status to exit with; the parent derives the reason from it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Locked(_) => LOCKED,
            Self::Orphaned => ORPHANED,
            Self::Usage | Self::System { .. } => FAILED,
        }
    }
}

/// Executes `PROGRAM`, given `PARENT_PID LOCK_FILE PROGRAM [ARGUMENT...]`. Returns only if that fails: print the error
/// and exit with its [`exit_code`](GuardError::exit_code).
///
/// # Errors
/// If the parent has ended, the store is locked, or the program cannot be run.
pub fn guard(mut arguments: impl Iterator<Item = OsString>) -> Result<Infallible, GuardError> {
    let parent: u32 = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()).ok_or(GuardError::Usage)?;
    let lock_file = PathBuf::from(arguments.next().ok_or(GuardError::Usage)?);
    let program = arguments.next().ok_or(GuardError::Usage)?;
    let failed = |what| move |source: std::io::Error| GuardError::System { what, source };
    end_with(parent)?;
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
    fcntl_setfd(&lock, FdFlags::empty())
        .map_err(|error| failed("keeping the lock open for nats-server")(error.into()))?;
    let error = Command::new(program).args(arguments).exec();
    Err(failed("starting nats-server")(error))
}

/// Asks for SIGTERM when the thread that started us ends. The setting survives `exec`. The parent may have died before
/// it was made, so its id is compared afterwards.
#[cfg(target_os = "linux")]
fn end_with(parent: u32) -> Result<(), GuardError> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| GuardError::System { what: "watching the parent", source: error.into() })?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) { Ok(()) } else { Err(GuardError::Orphaned) }
}

/// Other systems have no such signal; only the lock shows that a server is still running.
#[cfg(not(target_os = "linux"))]
fn end_with(_parent: u32) -> Result<(), GuardError> {
    Ok(())
}
