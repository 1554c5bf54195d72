//! Test support for every crate: an in-memory transport, and a way to run one operator alone.

mod memory_broker;
mod memory_source;
mod memory_transport;
mod probe;
mod provoke;
#[cfg(test)]
pub(crate) mod units;
mod wrapped;

pub use memory_transport::{MemoryTransport, PATIENCE};
pub use probe::{ProbeResult, run, run_events};
pub use provoke::{Failing, Noop, Panicking, kinds};
pub use wrapped::TransportWrapper;
