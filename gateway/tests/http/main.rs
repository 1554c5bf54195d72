//! Tests of the gateway over real TCP, with the in-memory broker.

#![allow(clippy::unwrap_used, reason = "a test panics on what it does not expect")]

mod aborted_streams;
mod answers;
mod config;
mod connections;
mod cors;
mod csrf;
mod disconnects;
mod forms;
mod framing;
mod http2;
mod idempotency;
mod identity;
mod key_sets;
mod limits;
mod many_clients;
mod openapi;
mod probes;
mod refused_uploads;
mod reports;
mod requests;
mod result_order;
mod schemas;
mod service;
mod tail;
mod tls;
mod tokens;
mod uploads;
