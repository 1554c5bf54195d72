//! Whatever speaks a foreign protocol on behalf of operators: image models, vector indexes, the office engine and the
//! receivers of webhooks.
//!
//! Each module implements a trait that `pipeline` defines; the assembly builds it from its config section and hands it
//! over. An operator never sees a type of this crate.

#[cfg(target_os = "linux")]
pub mod documents;
pub mod index;
pub mod models;
pub mod webhook;
