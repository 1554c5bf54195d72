//! Documents through real workers: what comes out, what a dying worker does, what a hostile document reaches.
//!
//! LibreOffice must be installed (`make setup` says how), and the worker be built, as `cargo test` does:
//! `cargo build --release --workspace --example office_worker`. Documents are made by code (`samples`).
#![expect(clippy::unwrap_used, reason = "tests")]

mod containment;
mod formats;
mod options;
mod samples;
mod supervision;
mod world;
