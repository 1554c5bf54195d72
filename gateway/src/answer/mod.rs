//! From results to bytes: a request's result as a response, as server-sent events, or 202 with where to ask.

pub mod cancel;
pub mod follower;
pub mod result;
pub mod server_timing;
pub mod sse;
pub mod status;
pub mod stream_slot;
pub mod wait;
