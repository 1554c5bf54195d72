//! The `caudal` program.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// Events are many small allocations that end on other threads than they began on; the system's allocator spends a
/// seventh of the engine's time on that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for pages of 2 MiB, which a few bytes keep whole: ten thousand waiting streams took half as much
    // again. Where the kernel has no such pages there is nothing to turn off.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    caudal::main(caudal::Args::parse(), caudal::Extras::default())
}
