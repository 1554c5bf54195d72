//! What crosses the wire: names of subjects and streams, headers, events and payloads as NATS messages.

pub mod cloud_event;
pub mod delivery_position;
pub mod headers;
pub mod payload;
pub mod subjects;
