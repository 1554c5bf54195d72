//! Whatever speaks a foreign protocol on behalf of operators: image models and vector indexes.
//!
//! Each module implements a trait that `pipeline` defines; the assembly builds it from its config section and hands it
//! over. An operator never sees a type of this crate.

pub mod index;
pub mod models;
