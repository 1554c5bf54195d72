//! [`pipeline::Transport`] on NATS JetStream, and the private nats-server behind it.
//!
//! ```text
//! submit ─▶ EV-<flow> (work queue) ─▶ source ─▶ engine ─▶ publish_outcome ─▶ RES ─▶ watch, outcomes
//!                                        ├ note_ended ─▶ LEDGER ─▶ ended
//!                                        └ unreadable, given up ─▶ DEAD
//! put_claim ─▶ BLOB (chunks) ─▶ get_claim, drop_claim, unused          put_record ─▶ RECORDS ─▶ get_record
//! ```
//!
//! [`connect`] makes the streams of a [`Topology`]; [`server::PrivateServer`] runs a broker that dies with this process.
//! The README of this crate is for publishers and subscribers in other languages.

#[path = "queue/backlog.rs"]
mod backlog;
#[path = "wire/payload.rs"]
mod body;
#[path = "link/timeout.rs"]
mod bounded;
#[path = "stores/cancellations.rs"]
mod cancel;
#[path = "stores/claim_store.rs"]
mod claims;
#[path = "wire/cloud_event.rs"]
mod codec;
#[path = "link/connection.rs"]
mod connection;
#[path = "stores/dead_letters.rs"]
mod dead;
#[path = "wire/delivery_position.rs"]
mod delivery;
#[path = "link/direct_get.rs"]
mod direct;
#[path = "stores/result_dispatch.rs"]
mod dispatch;
#[path = "link/follower.rs"]
mod follow;
#[path = "queue/in_flight.rs"]
mod held;
mod jetstream;
#[path = "stores/ledger.rs"]
mod ledger;
#[path = "wire/subjects.rs"]
mod names;
#[path = "link/publish.rs"]
mod publish;
#[path = "queue/puller.rs"]
mod pump;
#[path = "stores/write_canary.rs"]
mod ready;
#[path = "stores/records.rs"]
mod records;
#[path = "stores/results.rs"]
mod results;
#[path = "server/private_server.rs"]
pub mod server;
#[path = "queue/source.rs"]
mod source;
mod spec;
#[path = "queue/submit.rs"]
mod submit;
#[path = "queue/tail.rs"]
mod tail;
#[path = "link/streams.rs"]
mod topology;
#[path = "stores/orphaned_claims.rs"]
mod unused;

use std::path::PathBuf;
use std::time::Duration;

use pipeline::BoxError;

pub use connection::{Access, Auth};
pub use jetstream::{ConnectOptions, JetStream, connect};
pub use spec::{Limits, NatsSpec, SyncInterval};
pub use topology::{FlowTopology, Topology};

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A key file cannot be read.
    #[error("key file {} cannot be read", file.display())]
    Key {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody answers at the address, or refuses who we are.
    #[error("no connection to the broker at {url}")]
    Refused {
        /// Where.
        url: String,
        /// Why.
        source: BoxError,
    },
    /// The broker did not answer in time.
    #[error("the broker at {url} did not answer within {limit:?}")]
    TimedOut {
        /// Where.
        url: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The server lacks what is needed.
    #[error("nats-server {found} is too old: 2.12 or newer is needed")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// A stream cannot be made or brought up to date.
    #[error("stream {stream} cannot be made or updated; {remedy}")]
    Stream {
        /// Which stream.
        stream: String,
        /// What to do.
        remedy: &'static str,
        /// What the broker says.
        source: BoxError,
    },
    /// Results cannot be followed.
    #[error("results cannot be followed")]
    Results(#[source] BoxError),
}
