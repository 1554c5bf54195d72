//! Tests of the engine and the config through the crate's public face.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod cancel;
mod config;
mod edges;
mod engine;
mod follow_ups;
mod images;
mod lanes;
mod ledger;
mod memory;
mod outage;
mod storage;
mod support;
mod suspects;
