//! Office documents: LibreOffice in worker processes of this program, pooled, replaced and locked in.
//!
//! [`Pool`] is for whoever converts; [`worker_main`] is the body of the hidden subcommand that the pool starts.
//! `kit` binds the engine, `office` drives it through one conversion, `sandbox` and `selftest` hold it, `pool` supervises.

mod fake;
mod filter;
mod kit;
mod office;
mod pdf;
mod pool;
mod profile;
mod protocol;
mod raster;
mod sample;
mod sandbox;
mod selftest;
mod sheet;
mod spec;
mod usage;
mod verify;
mod worker;

pub use pool::{Containment, Pool, PoolConfig, Reason, Recycle, Snapshot, StartError};
pub use protocol::Engine;
pub use sandbox::{Layers, Limits};
pub use selftest::Hole;
pub use spec::{OfficeSpec, PACKAGES};
pub use worker::worker_main;
