//! `caudal` with one operator more: `use = "greyscale"`. Write a stage of it behind `decode`:
//!
//! ```toml
//! [[flow.describe.stage]]
//! use = "greyscale"
//! ```

mod operator;

use std::process::ExitCode;

use caudal::Extras;
use clap::Parser;

fn main() -> ExitCode {
    let extras = Extras { kinds: vec![operator::KIND], ..Extras::default() };
    caudal::main(caudal::Args::parse(), extras)
}
