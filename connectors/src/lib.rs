//! Adapters to foreign libraries and protocols: ONNX models, vector indexes, LibreOffice, webhook receivers.
//!
//! Each module implements a trait that `pipeline` defines. The root package builds it from its config section and hands
//! it to the operators, which see the trait and never a type of this crate. README.md says how to add a connector.

#[cfg(target_os = "linux")]
pub mod documents;
pub mod index;
pub mod models;
pub mod webhook;
