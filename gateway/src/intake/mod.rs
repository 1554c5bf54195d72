//! From a request's headers to a stored event: its parameters, its body, admission, and the submission to the broker.

pub mod acceptance;
pub mod admission;
mod blocking;
pub mod body;
mod idempotency;
pub mod params;
mod preferences;
pub mod record;
mod request_digest;
pub mod route;
pub mod route_handler;
mod submit;
mod webhook_headers;
