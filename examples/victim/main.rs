//! The program under test of `tests/faults`: `caudal` as it is, with operators that leave marks, places at which it kills
//! itself, and bugs that can be planted to see whether the tests would notice.
//!
//! What is armed comes by the environment, because the command line is the product's own:
//!
//! | variable | what |
//! | --- | --- |
//! | `CAUDAL_VICTIM_FOLDER` | where marks and the file `arm` lie; without it nothing is armed |
//! | `CAUDAL_VICTIM_BUG` | one of [`arm::Bug`], planted for the life of the process |

mod arm;
mod index;
mod operators;
mod transport;
mod unfenced;

use std::process::ExitCode;

use caudal::Extras;
use clap::Parser;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    arm::read_environment();
    let extras = Extras {
        kinds: operators::KINDS.to_vec(),
        wrap_transport: Some(transport::wrap),
        wrap_index: Some(index::wrap),
    };
    caudal::main(caudal::Args::parse(), extras)
}
