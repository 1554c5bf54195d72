//! Fault-injection tests: every accepted event ends exactly once, although processes are killed or paused, disks or
//! queues are full, and the network loses messages.
//!
//! [`oracle`] makes the ids and payloads and checks the results; [`cluster`] runs the program under test
//! (`examples/victim`), kills and pauses it; [`broker_client`] reads the broker's streams. There is one file per kind
//! of fault, and each test proves that its fault happened. [`planted_bugs`] runs the same scenarios with known bugs, which
//! the oracle must detect.
//!
//! The program under test is built by `cargo test`; with `--test faults` alone, build it first:
//! `cargo build --release --workspace --example victim`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broker_client;
mod broker_outage;
mod clock_skew;
mod cluster;
mod disk_full;
mod durable_edge;
mod index_outage;
mod kill_points;
mod late_acceptance;
mod network_partition;
mod oracle;
mod otlp_collector;
mod paused_process;
mod planted_bugs;
mod poison_event;
mod queue_full;
mod refused_writes;
mod roles;
mod slow_work;
mod soak;
mod sse_resume;
mod stalled_index;
#[path = "../it/test_images.rs"]
#[expect(dead_code, reason = "the test binary `it` uses the rest")]
mod test_images;
mod traces;
