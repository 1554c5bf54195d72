//! The command line: one file per command.

mod check;
mod config_args;
mod dead_letters;
mod doctor;
mod prune;
mod readiness_checks;
mod send;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};

use crate::extras::Extras;
use crate::installed::Parts;
use crate::logging::{self, LogFormat};

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
    command: Option<Command>,
    #[command(flatten)]
    parts: Parts,
    /// What to log, for example `warn` or `info,nats=debug`
    #[arg(
        long,
        env = "CAUDAL_LOG",
        default_value = "info,async_nats=warn,qdrant_edge=error",
        global = true,
        value_name = "FILTER"
    )]
    log: String,
    /// Format of log lines
    #[arg(long, value_enum, default_value_t, global = true)]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Run the flows and routes of the given config
    Serve(serve::ServeArgs),
    /// Check a config without starting anything; needs no network
    Check(check::CheckArgs),
    /// Show what is installed, in which version, and the command that installs what is missing
    Doctor(doctor::DoctorArgs),
    /// List, show, retry or drop dead letters: events that failed for good
    Dead(dead_letters::DeadArgs),
    /// Remove the broker's queues of flows that a config does not declare
    Prune(prune::PruneArgs),
    /// Send the files of a folder into a running service
    Send(send::SendArgs),
    /// Run the broker as a child process that ends with its parent
    #[command(hide = true)]
    Guard {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Convert documents for the parent process
    #[command(hide = true)]
    OfficeWorker {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Runs the command.
///
/// # Errors
/// What the command could not do, in a sentence for the user.
pub fn run(args: Args, extras: Extras) -> anyhow::Result<ExitCode> {
    // Both replace this process by another program, which is safe only while there is one thread.
    let command = match args.command {
        Some(Command::Guard { args }) => return Ok(guard(args)),
        Some(Command::OfficeWorker { args }) => return Ok(connectors::documents::worker_main(args.into_iter())),
        Some(command) => command,
        None => return print_help(&[]),
    };
    logging::init(&args.log, args.log_format)?;
    match command {
        Command::Serve(command) => serve::run(&command, &args.parts, &extras),
        Command::Check(command) => check::run(&command, &extras),
        Command::Doctor(command) => doctor::run(&command, &args.parts),
        Command::Dead(command) if command.is_bare() => print_help(&["dead"]),
        Command::Dead(command) => dead_letters::run(&command),
        Command::Prune(command) => prune::run(&command, &args.parts, &extras),
        Command::Send(command) => send::run(&command),
        Command::Guard { .. } | Command::OfficeWorker { .. } => unreachable!("handled above"),
    }
}

/// Prints the help of a command that was given without the subcommand it needs.
fn print_help(path: &[&str]) -> anyhow::Result<ExitCode> {
    let mut command = Args::command();
    command.build();
    let command = path.iter().try_fold(&mut command, |command, name| command.find_subcommand_mut(name));
    command.context("no such command")?.print_help()?;
    Ok(ExitCode::SUCCESS)
}

/// Replaces this process by the broker. Returns only if that fails, with the exit code that the parent expects.
fn guard(args: Vec<OsString>) -> ExitCode {
    let Err(error) = nats::server::guard(args.into_iter());
    let code = error.exit_code();
    eprintln!("error: {:#}", anyhow::Error::from(error));
    ExitCode::from(code)
}
