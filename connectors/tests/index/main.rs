//! Vector indexes: the conformance suite (`conformance.rs`) over every kind, and tests of each kind.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic, and read the environment")]

mod conformance;
mod embedded;
mod qdrant;
#[path = "../support/mod.rs"]
mod support;
