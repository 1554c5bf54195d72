//! End to end: the built program, a real broker, real models, HTTP from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod bad_input;
mod browser;
mod caudal;
mod check;
mod console;
mod crash;
mod dead;
mod gendoc;
mod load;
mod metrics;
mod onnx;
mod photos;
mod pictures;
mod reports;
mod secure;
mod send;
mod tenants;
