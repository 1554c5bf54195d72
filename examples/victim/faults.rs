//! Fault injection: kill points, planted bugs and mark files of this process.
//!
//! The file `arm` contains `POINT FLOW N`: on the N-th pass of the kill point for the flow (`*`: any), the file is
//! renamed to `fired` and the process gets SIGKILL. The file is read at every pass, so that a running process can be
//! armed; the rename disarms the process that is started next.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Signal, getpid, kill_process};

/// A bug that can be planted, for the tests to detect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Events are acknowledged on delivery, before they are processed.
    AckEarly,
    /// A terminal result is stored even if the request has one.
    NoFence,
    /// Ended events are not recorded.
    NoLedger,
    /// Answers do not match their payload.
    Corrupt,
    /// A result of an unknown request is published.
    Spurious,
    /// A refused result counts as a fault of its event.
    RefusalIsAFault,
    /// Readiness asks the canary only, and not every stream.
    CanaryOnly,
}

impl Bug {
    fn named(name: &str) -> Option<Self> {
        match name {
            "ack-early" => Some(Self::AckEarly),
            "no-fence" => Some(Self::NoFence),
            "no-ledger" => Some(Self::NoLedger),
            "corrupt" => Some(Self::Corrupt),
            "spurious" => Some(Self::Spurious),
            "refusal-is-a-fault" => Some(Self::RefusalIsAFault),
            "canary-only" => Some(Self::CanaryOnly),
            _ => None,
        }
    }
}

/// The configuration of this process.
struct FaultConfig {
    folder: Option<PathBuf>,
    bug: Option<Bug>,
    /// The last content of `arm`, and how often its point was passed since.
    passed: Mutex<(String, u32)>,
}

/// Global, because the wrappers that `caudal` accepts are plain functions without state.
static CONFIG: OnceLock<FaultConfig> = OnceLock::new();

/// Reads the environment variables; called once, before anything else.
#[expect(clippy::disallowed_methods, reason = "the command line is caudal's own")]
pub fn read_environment() {
    let bug = std::env::var("CAUDAL_VICTIM_BUG").ok();
    let folder = std::env::var_os("CAUDAL_VICTIM_FOLDER").map(PathBuf::from);
    let bug = bug.map(|name| Bug::named(&name).expect("CAUDAL_VICTIM_BUG is the name of a bug"));
    CONFIG.get_or_init(|| FaultConfig { folder, bug, passed: Mutex::default() });
}

/// Whether this bug is planted in this process.
pub fn has(bug: Bug) -> bool {
    CONFIG.get().is_some_and(|config| config.bug == Some(bug))
}

/// The folder of mark files and of `arm`.
pub fn folder() -> Option<&'static Path> {
    CONFIG.get()?.folder.as_deref()
}

/// Passes a kill point: kills the process if the point is armed and due.
pub fn pass(point: &str, flow: &str) {
    let (Some(config), Some(folder)) = (CONFIG.get(), folder()) else { return };
    let file = folder.join("arm");
    let Ok(text) = fs::read_to_string(&file) else { return };
    let mut words = text.split_whitespace();
    let (Some(at), Some(of), Some(times)) = (words.next(), words.next(), words.next()) else { return };
    if at != point || (of != "*" && of != flow) {
        return;
    }
    let mut passed = config.passed.lock().unwrap_or_else(PoisonError::into_inner);
    if passed.0 != text {
        *passed = (text.clone(), 0);
    }
    passed.1 += 1;
    if times.parse().is_ok_and(|times: u32| passed.1 >= times) {
        // If two processes are at the point at once, only the one whose rename succeeds dies.
        if fs::rename(&file, folder.join("fired")).is_ok() {
            die();
        }
    }
}

/// Sends SIGKILL to this process.
pub fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    // Not reached: SIGKILL cannot be blocked.
    std::process::abort()
}

/// Appends a line to a mark file in one write, so that lines of several processes do not mix.
pub fn mark(file: &str, line: &str) -> std::io::Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    let mut file = fs::OpenOptions::new().create(true).append(true).open(folder.join(file))?;
    file.write_all(format!("{line}\n").as_bytes())
}

/// Whether the test has created a file of this name in the folder.
pub fn is_set(name: &str) -> bool {
    folder().is_some_and(|folder| folder.join(name).exists())
}
