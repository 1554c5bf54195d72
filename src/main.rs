//! The `caudal` program.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// Events are many small allocations that end on other threads than they began on; the system's allocator spends a
/// seventh of the engine's time on that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    caudal::main(caudal::Args::parse(), caudal::Extras::default())
}
