//! End-to-end tests: the built program with a real broker and real models, over HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
#[path = "../faults/broker_client.rs"]
#[expect(dead_code, reason = "the test binary `faults` uses the rest")]
mod broker_client;
mod browser;
mod caudal;
mod check;
mod cli_over_tls;
mod config_changes;
mod console;
mod crash;
mod dead_letters;
mod embeddings;
mod first_messages;
mod gendoc;
mod memory_under_load;
mod metrics;
mod onnx_model;
mod readme;
mod reports;
mod send;
mod send_restarts;
mod split_answers;
mod tenants;
mod test_images;
