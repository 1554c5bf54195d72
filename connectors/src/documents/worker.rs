//! The worker process: sets up its folder, locks itself in, loads the engine, and converts one document at a time.
//!
//! Started by the supervisor through a hidden subcommand of the program. Any internal doubt ends the process: the supervisor
//! has another one ready.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use super::kit::{self, Kit};
use super::protocol::{Engine, Order, Reply, Setup, receive, send};
use super::sandbox::{self, Reach};
use super::usage::Usage;
use super::{fake, office, pdf, profile, selftest};

/// Runs a worker until its supervisor is gone. `arguments` are those behind the subcommand: the process id of the
/// supervisor.
///
/// Call it before the process has a second thread: namespaces and filters are of the thread that asks for them.
#[must_use]
pub fn worker_main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(parent) = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()) else {
        eprintln!("error: this command is for the program's own use; it takes the process id of its supervisor");
        return ExitCode::from(2);
    };
    kit::close_inherited();
    match run(parent) {
        // The engine's exit handlers crash, and so may those of its threads.
        Ok(()) => kit::leave(0),
        Err(error) => {
            eprintln!("error: document worker: {error}");
            kit::leave(1)
        }
    }
}

fn run(parent: u32) -> io::Result<()> {
    let _ = rustix::process::setsid();
    sandbox::die_with(parent)?;
    let mut pipe = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let Some(setup) = receive::<Setup>(&mut pipe)? else { return Ok(()) };
    let usage = Usage::open()?;
    furnish(&setup)?;
    let missing = sandbox::enter(setup.layers, setup.limits, &reach(&setup), parent)?;
    let holes = selftest::holes(&setup.canary);
    if setup.insist && !holes.is_empty() {
        return send(&mut pipe, &Reply::Refused { holes, missing });
    }
    let mut loaded = match load(&setup, &usage) {
        Ok(loaded) => loaded,
        Err(why) => return send(&mut pipe, &Reply::Broken { why }),
    };
    let version = loaded.as_ref().map_or("fake", Kit::version).to_owned();
    send(&mut pipe, &Reply::Ready { version, rss: usage.resident(), missing, holes })?;
    while let Some(order) = receive::<Order>(&mut pipe)? {
        let reply = match (order, &mut loaded) {
            (Order::Finish(job), _) => pdf::finish(&job, &usage),
            (Order::Convert(job), Some(kit)) => office::convert(kit, &job, &usage),
            (Order::Convert(job), None) => fake::convert(&job, &mut pipe),
        };
        send(&mut pipe, &reply)?;
    }
    Ok(())
}

/// Fills the worker's folder while it still may.
fn furnish(setup: &Setup) -> io::Result<()> {
    for part in ["profile", "tmp", "jobs"] {
        fs::create_dir_all(setup.folder.join(part))?;
    }
    profile::write(&setup.folder.join("profile"), setup.layers.profile)?;
    match &setup.engine {
        Engine::LibreOffice(office) => profile::overlay(office, &profile::overlay_folder(&setup.folder)),
        Engine::Fake => Ok(()),
    }
}

fn reach(setup: &Setup) -> Reach {
    let office: Option<PathBuf> = match &setup.engine {
        Engine::LibreOffice(office) => Some(office.clone()),
        Engine::Fake => None,
    };
    Reach { own: setup.folder.clone(), office }
}

fn load(setup: &Setup, usage: &Usage) -> Result<Option<Kit>, String> {
    match &setup.engine {
        Engine::LibreOffice(folder) => office::start(folder, &setup.folder, usage).map(Some),
        Engine::Fake => Ok(None),
    }
}
