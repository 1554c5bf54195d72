//! Office documents: converts them with LibreOffice, in pooled and sandboxed worker processes of this program.
//!
//! [`Pool`] is the supervisor, which implements the converter; [`worker_main()`] is the body of the hidden subcommand
//! that it starts. `libreofficekit` is the binding, `convert` drives it through one conversion, `sandbox` and
//! `sandbox_selftest` contain it, `pdf` post-processes PDFs, `pool` supervises.

mod convert;
mod csv_to_ods;
mod export_filter;
mod install_overlay;
mod libreofficekit;
mod pdf;
mod pdf_to_png;
mod pool;
mod process_usage;
mod protocol;
mod sandbox;
mod sandbox_selftest;
mod spec;
mod test_engine;
mod user_profile;
mod verify_output;
mod warmup_document;
mod worker_main;

pub use pool::{Containment, Pool, PoolConfig, PoolMetrics, Recycle, RestartReason, StartError};
pub use protocol::Engine;
pub use sandbox::{Layers, Limits};
pub use sandbox_selftest::SandboxLeak;
pub use spec::{OfficeSpec, PACKAGES};
pub use worker_main::worker_main;
