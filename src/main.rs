//! The `caudal` program.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// An event is many small allocations, freed on other threads than they were made on. The system allocator spends a seventh
/// of the engine's time on them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for 2 MiB pages, and a few live bytes keep a whole page resident: 10,000 waiting streams took half as
    // much memory again. An error means that the kernel has no such pages.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    caudal::main(caudal::Args::parse(), caudal::Extras::default())
}
