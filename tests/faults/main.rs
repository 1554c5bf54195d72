//! The fault harness: what was acknowledged is owed, whatever dies, stops or fills up.
//!
//! [`oracle`] mints ids and payloads and compares; [`world`] runs the program under test (`examples/victim`) and breaks it;
//! [`outside`] looks at the broker. One file per family of faults, each of whose tests proves that its fault happened.
//! [`planted`] runs the same scenarios with known bugs, which the oracle must find.
//!
//! The program under test is built by `cargo test`; with `--test faults` alone, build it first:
//! `cargo build --release --workspace --example victim`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod broker;
mod clock;
mod collector;
mod disk;
mod edges;
mod full;
mod kill_points;
mod network;
mod oracle;
mod outside;
#[path = "../it/pictures.rs"]
#[expect(dead_code, reason = "the other test binary uses the rest")]
mod pictures;
mod planted;
mod poison;
mod resumed;
mod slow_index;
mod soak;
mod stopped;
mod storm;
mod traces;
mod world;
