//! The `caudal` program: parse, load, build, run, drain.

mod assembly;
mod cli;
mod figures;
mod locate;
mod logging;
mod plan;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// Events are many small allocations that end on other threads than they began on; the system's allocator spends a
/// seventh of the engine's time on that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

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
