//! The `caudal` program: parse, load, build, run, drain.

mod assembly;
mod cli;
mod figures;
mod locate;
mod logging;
mod plan;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    match cli::run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
