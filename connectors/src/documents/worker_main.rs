//! The worker process: sets up its folder, sandboxes itself, loads LibreOffice, and converts one document at a time.
//!
//! The supervisor starts it by a hidden subcommand of the program. Any internal error ends the process: the supervisor
//! has another one ready.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use super::install_overlay::{overlay_folder, write_overlay};
use super::libreofficekit::{self, LibreOfficeKit};
use super::process_usage::ProcessUsage;
use super::protocol::{Engine, Reply, Request, Setup, receive, send};
use super::sandbox::{self, AllowedPaths};
use super::sandbox_selftest::sandbox_leaks;
use super::user_profile::write_profile;
use super::{convert, pdf, test_engine};

/// Runs a worker until its supervisor closes the connection. `arguments` are those after the subcommand: the process id
/// of the supervisor.
///
/// Call it before the process has a second thread: namespaces and filters apply to the calling thread.
#[must_use]
pub fn worker_main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(parent) = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()) else {
        eprintln!("error: this command is for internal use; it takes the process id of its supervisor");
        return ExitCode::from(2);
    };
    libreofficekit::close_inherited();
    match run(parent) {
        // LibreOffice's exit handlers crash.
        Ok(()) => libreofficekit::exit_now(0),
        Err(error) => {
            eprintln!("error: document worker: {error}");
            libreofficekit::exit_now(1)
        }
    }
}

fn run(parent: u32) -> io::Result<()> {
    let _ = rustix::process::setsid();
    sandbox::die_with_parent(parent)?;
    let mut pipe = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let Some(setup) = receive::<Setup>(&mut pipe)? else { return Ok(()) };
    let usage = ProcessUsage::open()?;
    set_up_folder(&setup)?;
    let missing = sandbox::enter(setup.layers, setup.limits, &allowed_paths(&setup), parent)?;
    let leaks = sandbox_leaks(&setup.canary);
    if setup.require_sandbox && !leaks.is_empty() {
        return send(&mut pipe, &Reply::Refused { leaks, missing });
    }
    let mut kit = match load(&setup, &usage) {
        Ok(kit) => kit,
        Err(why) => return send(&mut pipe, &Reply::Broken { why }),
    };
    let version = kit.as_ref().map_or("test", LibreOfficeKit::version).to_owned();
    send(&mut pipe, &Reply::Ready { version, rss: usage.resident(), missing, leaks })?;
    while let Some(request) = receive::<Request>(&mut pipe)? {
        let reply = match (request, &mut kit) {
            (Request::Finish(job), _) => pdf::finish(&job, &usage),
            (Request::Convert(job), Some(kit)) => convert::convert(kit, &job, &usage),
            (Request::Convert(job), None) => test_engine::convert(&job, &mut pipe),
        };
        send(&mut pipe, &reply)?;
    }
    Ok(())
}

/// Fills the worker's folder, before the sandbox forbids it.
fn set_up_folder(setup: &Setup) -> io::Result<()> {
    for part in ["profile", "tmp", "jobs"] {
        fs::create_dir_all(setup.folder.join(part))?;
    }
    write_profile(&setup.folder.join("profile"), setup.layers.profile)?;
    match &setup.engine {
        Engine::LibreOffice(office) => write_overlay(office, &overlay_folder(&setup.folder)),
        Engine::Test => Ok(()),
    }
}

fn allowed_paths(setup: &Setup) -> AllowedPaths {
    let office: Option<PathBuf> = match &setup.engine {
        Engine::LibreOffice(office) => Some(office.clone()),
        Engine::Test => None,
    };
    AllowedPaths { own: setup.folder.clone(), office }
}

/// Starts LibreOffice; `None` with the test engine.
fn load(setup: &Setup, usage: &ProcessUsage) -> Result<Option<LibreOfficeKit>, String> {
    match &setup.engine {
        Engine::LibreOffice(folder) => convert::start(folder, &setup.folder, usage).map(Some),
        Engine::Test => Ok(None),
    }
}
