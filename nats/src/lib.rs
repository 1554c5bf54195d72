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

mod backlog;
mod body;
mod bounded;
mod cancel;
mod claims;
mod codec;
mod connection;
mod dead;
mod delivery;
mod direct;
mod dispatch;
mod follow;
mod held;
mod jetstream;
mod ledger;
mod names;
mod publish;
mod pump;
mod ready;
mod records;
mod results;
pub mod server;
mod source;
mod spec;
mod submit;
mod tail;
mod topology;
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
