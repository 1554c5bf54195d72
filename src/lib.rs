//! The `caudal` program as a library: a program with operators of its own is this library and a `main` of ten lines.
//!
//! ```no_run
//! use clap::Parser;
//!
//! fn main() -> std::process::ExitCode {
//!     let extras = caudal::Extras::default();
//!     caudal::main(caudal::Args::parse(), extras)
//! }
//! ```
//!
//! ```text
//! cli ─▶ assembly ─▶ role ─▶ plan ─▶ config_warnings, machine_check        cli, assembly ─▶ metrics, telemetry, installed, extras
//! ```

mod assembly;
mod cli;
mod config_warnings;
mod extras;
mod http_client;
mod installed;
mod logging;
mod machine_check;
mod metrics;
mod plan;
mod role;
mod telemetry;

use std::process::ExitCode;

pub use cli::Args;
pub use extras::{Extras, Wrap};
pub use gateway::{ReadinessCheck, ReadinessChecks};

/// Runs the command line. An error is printed to standard error and becomes exit code 1.
#[must_use]
pub fn main(args: Args, extras: Extras) -> ExitCode {
    match cli::run(args, extras) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
