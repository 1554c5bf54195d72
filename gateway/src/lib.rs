//! The HTTP server of Caudal: requests become events, results become JSON, files or server-sent events.
//!
//! The folders follow a request. Each imports only from those below it and from the ground:
//!
//! ```text
//! serve.rs     starts the listeners, drains on shutdown          router.rs   which handler answers which path
//!   pages/     built-in resources: requests, tickets, dead letters, tails, flows, records, probes
//!   openapi/   the OpenAPI document                              console/    the console's files
//!   intake/    from headers to a stored event: route handler, parameters, body, admission, submit
//!   answer/    from results to bytes: following, waiting, SSE, files, cancelling on disconnect
//!   door/      for every request: authentication, CSRF check, CORS, rate limits, traces, metrics
//!   wire/      sockets: accept loop, connection, HTTP/1 framing, HTTP/2 limits, TLS
//! the ground, which all may use:
//!   state.rs   what handlers share (data only)                   identity/   API keys, tokens, tickets, tenants
//!   capacity/  drain rate, Retry-After, memory budget, open counts per client
//!   spec/      the config                                        problem.rs  error answers (RFC 9457)
//!   flow_entry.rs, header_names.rs, expiring_store.rs, redaction.rs
//! ```
//!
//! On its way in, a request passes `wire` and `door` first; `pages` and `intake` hold its handlers. [`router()`] is
//! apart from [`serve()`], so that tests can use either alone. This is the only crate that knows axum; of the broker it
//! knows only [`pipeline::Transport`].

mod answer;
mod capacity;
mod console;
mod door;
mod expiring_store;
mod flow_entry;
mod header_names;
pub mod identity;
mod intake;
mod openapi;
mod pages;
mod problem;
mod redaction;
mod router;
mod serve;
pub mod spec;
mod state;
#[cfg(test)]
mod testing;
mod wire;

pub use door::metrics::describe as describe_metrics;
pub use flow_entry::FlowEntry;
pub use identity::{Identity, IdentityError};
pub use problem::Problem;
pub use router::router;
pub use serve::{Listener, serve};
pub use state::{Gateway, GatewayState, ReadinessCheck, ReadinessChecks, RenderMetrics, StatsReader};
pub use wire::tls::{Tls, TlsError};
