//! The worker process for the tests of `connectors`, which have no `caudal` to start: the hidden subcommand, alone.

use std::process::ExitCode;

fn main() -> ExitCode {
    connectors::documents::worker_main(std::env::args_os().skip(1))
}
