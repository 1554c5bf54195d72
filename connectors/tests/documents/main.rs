//! The document pool with real worker processes: formats, options, supervision and containment.
//!
//! LibreOffice must be installed (`make setup` does it), and the worker program built, as `cargo test` does:
//! `cargo build --release --workspace --example office_worker`. Documents are generated (`samples.rs`).
#![expect(clippy::unwrap_used, reason = "tests")]

mod containment;
mod formats;
mod options;
mod samples;
mod supervision;
mod test_pool;
