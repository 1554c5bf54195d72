//! The front of Caudal: HTTP requests become events, results become JSON, files or server-sent events.
//!
//! A request goes through [`spec`] (what a route takes), `intake` (its body, streamed into the object store and never
//! held whole), `ask` (kept by the broker in a task of its own, so that a client that leaves makes no half request) and
//! `answer` (now, later, or as a stream). [`router()`] is apart from [`serve()`], so that tests may use either alone. This is
//! the only crate that knows axum; of the broker it knows [`pipeline::Transport`].

mod answer;
mod ask;
mod connection;
mod console;
mod dead;
mod flows;
mod follow;
mod frames;
mod framing;
mod guard;
mod idempotency;
pub mod identity;
mod intake;
mod keep;
mod limit;
mod masked;
mod memory;
mod meter;
mod openapi;
mod origin;
mod pace;
mod params;
mod probes;
mod problem;
mod record;
mod requests;
mod router;
mod serve;
mod slots;
mod socket;
pub mod spec;
mod state;
mod streams;
mod tail;
mod tails;
mod tickets;
mod tls;
mod trace;
mod webhook;
mod wish;

pub use identity::{Identity, IdentityError};
pub use meter::describe;
pub use problem::Problem;
pub use router::router;
pub use serve::{Door, serve};
pub use state::{Check, Figures, FlowEntry, Gateway, GatewayState, RenderMetrics};
pub use tls::{Tls, TlsError};
