//! [`pipeline::Transport`] on NATS JetStream, and the private nats-server behind it.
//!
//! How an event moves through the streams:
//!
//! ```text
//! submit ─▶ EV-<flow> (work queue) ─▶ source ─▶ engine ─▶ publish_outcome ─▶ RES ─▶ watch, outcomes
//!                                        ├ note_ended ─▶ LEDGER ─▶ ended
//!                                        └ unreadable, or never settled ─▶ DEAD
//! put_claim ─▶ BLOB (chunks) ─▶ get_claim, drop_claim, orphan removal   put_record ─▶ RECORDS, OWN ─▶ get_record
//! ```
//!
//! Import order: a file imports only from its own folder and from those below it, and no files import each other in a
//! circle.
//!
//! ```text
//! connect.rs       opens connections, creates streams, starts tasks
//! jetstream.rs     implements Transport; hands each call to its part
//! queue/           the work queue of a flow: submit, source, puller, events in flight, backlog, tail, undeclared queues
//! stores/          results, dead letters, claim store, records, ledger, cancellations, liveness, canary, usage
//! link/            connections, streams and consumers, confirmed publishing, streams that refuse, direct get, following
//! server/          the private nats-server; imports neither link/ nor what is above it
//! wire/            subjects, headers, events and payloads as NATS messages
//! the ground       topology.rs, spec.rs, sync_interval.rs, access.rs, error.rs
//! ```
//!
//! [`connect()`] creates the streams of a [`Topology`]; [`server::PrivateServer`] runs a broker that ends with this
//! process. The README of this crate documents the subjects and headers for publishers and subscribers in other
//! languages.

mod access;
mod connect;
mod error;
mod jetstream;
mod link;
mod queue;
pub mod server;
mod spec;
mod stores;
mod sync_interval;
mod topology;
mod wire;

pub use access::{Access, Auth};
pub use connect::{ConnectOptions, connect};
pub use error::ConnectError;
pub use jetstream::JetStream;
pub use queue::undeclared::{Removal, UndeclaredQueue, UndeclaredQueues};
pub use spec::{Limits, NatsSpec};
pub use stores::usage::StorageUsage;
pub use sync_interval::SyncInterval;
pub use topology::{FlowTopology, Topology};
