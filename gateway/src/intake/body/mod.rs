//! A request's body, on its way from the socket into an event's payload.
//!
//! A body is streamed: what is longer than the inline limit goes on into the object store chunk by chunk. Only JSON
//! documents are in memory whole, under the memory budget. What was stored of a body that fails is removed again.

pub mod channel;
mod data_uri;
pub mod head;
mod header_parameters;
mod json;
mod media_type;
mod multipart;
mod part_reader;
pub mod read;
pub mod received;
mod report;
mod size_limit;
pub mod store;
