//! The `caudal` program as a library: a program with operators of its own is this and a `main` of ten lines.
//!
//! ```no_run
//! use clap::Parser;
//!
//! fn main() -> std::process::ExitCode {
//!     let extras = caudal::Extras::default();
//!     caudal::main(caudal::Args::parse(), extras)
//! }
//! ```

mod assembly;
mod cli;
mod client;
mod figures;
mod locate;
mod logging;
mod plan;
mod role;
mod telemetry;

use std::process::ExitCode;
use std::sync::Arc;

use pipeline::{OperatorKind, Transport, VectorIndex};

pub use cli::Args;

/// Puts something around a part: given the part, gives what is used in its place.
pub type Around<T> = fn(Arc<T>) -> Arc<T>;

/// What a program adds to this one.
#[derive(Clone, Default)]
pub struct Extras {
    /// Operators beside the built-in ones.
    pub kinds: Vec<OperatorKind>,
    /// Put around the transport that flows and gateway use.
    pub around_transport: Option<Around<dyn Transport>>,
    /// Put around the vector index.
    pub around_index: Option<Around<dyn VectorIndex>>,
}

/// Runs the command line and says how it went.
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
