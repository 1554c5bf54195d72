//! The command line: one file per command.

mod check;
mod dead;
mod doctor;
mod send;
mod serve;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use pipeline::spec::Sources;

use crate::Extras;
use crate::locate::Parts;
use crate::logging::{self, LogFormat};
use crate::plan;

/// Bounded, durable flows for the slow parts of a service: images, documents, chat, devices.
///
/// A flow is a chain of stages declared in TOML. Requests become events on NATS JetStream, stages work on them within
/// bounds, results come back over HTTP or SSE.
///
/// Exit codes: 0 done, 1 failed, 2 wrong command line, 3 problems in the config.
#[derive(Parser)]
#[command(name = "caudal", version, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    parts: Parts,
    /// What to log, for example `warn` or `info,nats=debug`
    #[arg(long, env = "CAUDAL_LOG", default_value = "info,async_nats=warn", global = true, value_name = "FILTER")]
    log: String,
    /// How a log line looks
    #[arg(long, value_enum, default_value_t, global = true)]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Run the flows and routes of the given config
    Serve(serve::ServeArgs),
    /// Check a config without starting anything; needs no network
    Check(check::CheckArgs),
    /// Say what is installed, which version, and what to run for what is not
    Doctor(doctor::DoctorArgs),
    /// List, show, retry or drop what ended in failure
    Dead(dead::DeadArgs),
    /// Send the files of a folder into a running service
    Send(send::SendArgs),
    /// Runs the broker as a child that ends with its parent
    #[command(hide = true)]
    Guard {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Converts documents for its parent
    #[command(hide = true)]
    OfficeWorker {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Exit code for a config with problems, so that scripts can tell it from a failure at work.
pub const EXIT_CONFIG: u8 = 3;

/// Config files and overrides, the same for every command that reads a config.
#[derive(clap::Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Config files, merged in order; without one the built-in default serves everything
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Override one key, for example `--set limits.enabled=false`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// The shipped configs, so that the program works alone.
const BUILT_IN: [(&str, &str); 3] = [
    ("caudal.toml", include_str!("../../config/caudal.toml")),
    ("gendoc.toml", include_str!("../../config/gendoc.toml")),
    ("petalert.toml", include_str!("../../config/petalert.toml")),
];

impl ConfigArgs {
    /// The texts to load: included files before those that include them, overrides last.
    fn sources(&self) -> anyhow::Result<Sources> {
        let mut sources = Sources::default();
        if self.files.is_empty() {
            add_built_in("caudal.toml", &mut sources)?;
        }
        for file in &self.files {
            add_file(file, &mut sources, 0)?;
        }
        for assignment in &self.overrides {
            sources.add_override(assignment);
        }
        Ok(sources)
    }
}

/// Includes within includes, at most: deeper ones are a circle.
const DEEPEST_INCLUDE: usize = 8;

fn add_file(file: &Path, sources: &mut Sources, depth: usize) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    anyhow::ensure!(depth < DEEPEST_INCLUDE, "{} includes itself", file.display());
    for included in plan::includes(&text) {
        add_file(&plan::beside(file, &included), sources, depth + 1)?;
    }
    sources.add(file.display().to_string(), &text);
    Ok(())
}

fn add_built_in(name: &str, sources: &mut Sources) -> anyhow::Result<()> {
    let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name).with_context(|| format!("no built-in {name}"))?;
    for included in plan::includes(text) {
        add_built_in(&included, sources)?;
    }
    sources.add(format!("{name} (built in)"), text);
    Ok(())
}

/// Runs the command.
///
/// # Errors
/// Whatever the command could not do, in a sentence for the person.
pub fn run(args: Args, extras: Extras) -> anyhow::Result<ExitCode> {
    // Both become something else, before there is a second thread.
    match args.command {
        Command::Guard { args } => return Ok(guard(args)),
        Command::OfficeWorker { args } => return Ok(connectors::documents::worker_main(args.into_iter())),
        _ => {}
    }
    logging::init(&args.log, args.log_format)?;
    match args.command {
        Command::Serve(command) => serve::run(&command, &args.parts, &extras),
        Command::Check(command) => check::run(&command, &extras),
        Command::Doctor(command) => doctor::run(&command, &args.parts),
        Command::Dead(command) => dead::run(&command),
        Command::Send(command) => send::run(&command),
        Command::Guard { .. } | Command::OfficeWorker { .. } => unreachable!("handled above"),
    }
}

/// Becomes the broker; comes back only if that fails, with the code that the parent understands.
fn guard(args: Vec<OsString>) -> ExitCode {
    let Err(error) = nats::server::guard(args.into_iter());
    eprintln!("error: {error}");
    ExitCode::from(error.exit_code())
}
