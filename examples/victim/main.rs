//! The program under test of `tests/faults`: `caudal` with test operators, kill points at which it kills itself, and
//! bugs that can be planted to check that the tests detect them.
//!
//! It is configured by environment variables, because the command line is `caudal`'s own:
//!
//! | variable | what |
//! | --- | --- |
//! | `CAUDAL_VICTIM_FOLDER` | the folder of mark files and of the file `arm`; without it no kill point is active |
//! | `CAUDAL_VICTIM_BUG` | a bug of [`faults::Bug`], planted for the life of the process |

mod faults;
mod index;
mod operators;
mod transport;
mod unfenced_results;

use std::process::ExitCode;

use caudal::{Extras, ReadinessChecks};
use clap::Parser;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    faults::read_environment();
    let extras = Extras {
        kinds: operators::KINDS.to_vec(),
        wrap_transport: Some(transport::wrap),
        wrap_index: Some(index::wrap),
        change_checks: Some(forget_streams),
    };
    caudal::main(caudal::Args::parse(), extras)
}

/// The planted bug `canary-only`.
fn forget_streams(checks: &mut ReadinessChecks) {
    if faults::has(faults::Bug::CanaryOnly) {
        checks.retain(|(name, _)| !name.starts_with("stream "));
    }
}
