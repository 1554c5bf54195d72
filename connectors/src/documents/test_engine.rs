//! The test engine: does what its input says, to provoke the failures that the pool must survive.
//!
//! The first line of the input is a command: `echo`, `abort`, `abort-once`, `silent`, `garbage`, `leave`, `half`,
//! `litter`, `sleep` or `grow`. Only tests configure a pool with it; no config section can.

use std::fs;
use std::io::Write;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use super::libreofficekit;
use super::protocol::{ConvertJob, DocumentFault, JobResult, Reply};

/// Resident memory that `grow` reports.
const GROWN_BYTES: u64 = 1 << 40;

/// Executes the command of the input.
pub(super) fn convert(job: &ConvertJob, pipe: &mut impl Write) -> Reply {
    let input = fs::read(job.folder.join(format!("in.{}", job.from))).unwrap_or_default();
    let text = String::from_utf8_lossy(&input).into_owned();
    let mut rss = 1;
    match text.lines().next().unwrap_or_default() {
        "abort" => std::process::abort(),
        "abort-once" if job.attempt == 1 => std::process::abort(),
        // A stopped process does not answer, and only SIGKILL ends it.
        "silent" => drop(kill_process(getpid(), Signal::STOP)),
        "garbage" => drop(pipe.write_all(b"\x00\x00\x00\x05hello")),
        "leave" => libreofficekit::exit_now(0),
        "half" => {
            drop(fs::write(job.folder.join("out.pdf"), b"%PDF-1."));
            std::process::abort();
        }
        "litter" => {
            drop(fs::write(job.folder.join("left"), b"x"));
            drop(fs::write(std::env::temp_dir().join("left"), b"x"));
        }
        "sleep" => wait(Duration::from_millis(300)),
        "grow" => rss = GROWN_BYTES,
        _ => {}
    }
    let name = format!("out.{}", job.to);
    match fs::write(job.folder.join(&name), &input) {
        Ok(()) => Reply::Done(JobResult { ms_load: 0, ms_save: 0, ms_cpu: 0, rss, pages: 1, files: vec![name] }),
        Err(error) => Reply::Rejected { fault: DocumentFault::Unreadable, why: error.to_string() },
    }
}

#[expect(clippy::disallowed_methods, reason = "it must be slow; the process does nothing else")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}
