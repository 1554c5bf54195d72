//! The link to the broker: connections, streams and consumers, confirmed publishing, reading and following streams.

pub mod broker;
pub mod connection;
pub mod direct_get;
pub mod ensure;
pub mod flow;
pub mod follower;
pub mod healing;
pub mod publish;
pub mod stream_health;
pub mod streams;
pub mod timeout;
