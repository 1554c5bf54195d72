//! What is armed in this process: the bug planted in it, and the point at which it kills itself.
//!
//! The file `arm` holds `POINT FLOW N`: the N-th time the point is passed for the flow (`*`: any), the file becomes
//! `fired` and the process gets SIGKILL. It is read at every pass, so that a running process can be armed, and the one
//! that comes after it is not.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Signal, getpid, kill_process};

/// A classic mistake, for the tests to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The broker is told "done" when the event is delivered.
    AckEarly,
    /// A terminal result is stored whatever is there already.
    NoFence,
    /// Nobody remembers which events have ended.
    NoLedger,
    /// An answer is not that of its payload.
    Corrupt,
    /// A result appears that nobody asked for.
    Spurious,
}

impl Bug {
    fn named(name: &str) -> Option<Self> {
        match name {
            "ack-early" => Some(Self::AckEarly),
            "no-fence" => Some(Self::NoFence),
            "no-ledger" => Some(Self::NoLedger),
            "corrupt" => Some(Self::Corrupt),
            "spurious" => Some(Self::Spurious),
            _ => None,
        }
    }
}

struct Armed {
    folder: Option<PathBuf>,
    bug: Option<Bug>,
    /// What `arm` said last, and how often its point was passed since.
    passed: Mutex<(String, u32)>,
}

/// The product hands plain functions around, so what they share lies here.
static ARMED: OnceLock<Armed> = OnceLock::new();

/// Reads what is armed; once, before anything else.
#[expect(clippy::disallowed_methods, reason = "the command line is the product's own")]
pub fn read_environment() {
    let bug = std::env::var("CAUDAL_VICTIM_BUG").ok();
    let folder = std::env::var_os("CAUDAL_VICTIM_FOLDER").map(PathBuf::from);
    let bug = bug.map(|name| Bug::named(&name).expect("CAUDAL_VICTIM_BUG names no bug"));
    ARMED.get_or_init(|| Armed { folder, bug, passed: Mutex::default() });
}

/// Whether this bug is planted.
pub fn has(bug: Bug) -> bool {
    ARMED.get().is_some_and(|armed| armed.bug == Some(bug))
}

/// Where marks lie.
pub fn folder() -> Option<&'static Path> {
    ARMED.get()?.folder.as_deref()
}

/// Passes a point, perhaps for the last time.
pub fn pass(point: &str, flow: &str) {
    let (Some(armed), Some(folder)) = (ARMED.get(), folder()) else { return };
    let file = folder.join("arm");
    let Ok(text) = fs::read_to_string(&file) else { return };
    let mut words = text.split_whitespace();
    let (Some(at), Some(of), Some(times)) = (words.next(), words.next(), words.next()) else { return };
    if at != point || (of != "*" && of != flow) {
        return;
    }
    let mut passed = armed.passed.lock().unwrap_or_else(PoisonError::into_inner);
    if passed.0 != text {
        *passed = (text.clone(), 0);
    }
    passed.1 += 1;
    if times.parse().is_ok_and(|times: u32| passed.1 >= times) {
        // Of two processes at the point at once, one dies.
        if fs::rename(&file, folder.join("fired")).is_ok() {
            die();
        }
    }
}

/// Ends as `kill -9` does.
pub fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    // Not reached: the signal cannot be held off.
    std::process::abort()
}

/// Adds a line to a file of marks; whole lines, whichever process writes them.
pub fn mark(file: &str, line: &str) -> std::io::Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    let mut file = fs::OpenOptions::new().create(true).append(true).open(folder.join(file))?;
    file.write_all(format!("{line}\n").as_bytes())
}

/// Whether the tests have put a file of this name there.
pub fn is_set(name: &str) -> bool {
    folder().is_some_and(|folder| folder.join(name).exists())
}
