//! An engine that does what its input says: what a supervisor must survive, provoked on purpose.
//!
//! The first line of the input is a word: `echo`, `abort`, `abort-once`, `silent`, `garbage`, `leave`, `half`, `litter`,
//! `sleep` or `grow`. Only a pool that was configured for it has this engine.

use std::fs;
use std::io::Write;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use super::kit;
use super::protocol::{Done, Fault, Job, Reply};

/// How much `grow` says that it uses.
const GROWN: u64 = 1 << 40;

/// Answers, or does not.
pub(super) fn convert(job: &Job, pipe: &mut impl Write) -> Reply {
    let input = fs::read(job.folder.join(format!("in.{}", job.from))).unwrap_or_default();
    let text = String::from_utf8_lossy(&input).into_owned();
    let mut rss = 1;
    match text.lines().next().unwrap_or_default() {
        "abort" => std::process::abort(),
        "abort-once" if job.attempt == 1 => std::process::abort(),
        // Stopped like this, it answers nothing and does not die either, but of SIGKILL.
        "silent" => drop(kill_process(getpid(), Signal::STOP)),
        "garbage" => drop(pipe.write_all(b"\x00\x00\x00\x05hello")),
        "leave" => kit::leave(0),
        "half" => {
            drop(fs::write(job.folder.join("out.pdf"), b"%PDF-1."));
            std::process::abort();
        }
        "litter" => {
            drop(fs::write(job.folder.join("left"), b"x"));
            drop(fs::write(std::env::temp_dir().join("left"), b"x"));
        }
        "sleep" => wait(Duration::from_millis(300)),
        "grow" => rss = GROWN,
        _ => {}
    }
    let name = format!("out.{}", job.to);
    match fs::write(job.folder.join(&name), &input) {
        Ok(()) => Reply::Done(Done { ms_load: 0, ms_save: 0, ms_cpu: 0, rss, pages: 1, files: vec![name] }),
        Err(error) => Reply::Rejected { fault: Fault::Unreadable, why: error.to_string() },
    }
}

#[expect(clippy::disallowed_methods, reason = "being slow is what it is for; the process has nothing else to do")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}
