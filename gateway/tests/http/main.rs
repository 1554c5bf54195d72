//! The gateway over real TCP, on the broker in memory.

#![allow(clippy::unwrap_used, reason = "a test panics on what it does not expect")]

mod answers;
mod broken;
mod config;
mod cut;
mod framing;
mod http2;
mod idempotency;
mod identity;
mod key_sets;
mod limits;
mod openapi;
mod origins;
mod probes;
mod reports;
mod requests;
mod service;
mod siege;
mod sockets;
mod tail;
mod tls;
mod tokens;
mod uploads;
