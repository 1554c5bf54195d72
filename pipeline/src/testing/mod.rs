//! For the tests of every crate: a broker in memory, and a way to run one operator without a flow.

mod memory;
mod probe;
mod provoke;
mod wrapped;

pub use memory::{MemoryTransport, PATIENCE};
pub use probe::{Ran, run, run_events};
pub use provoke::{Failing, Noop, Panicking, kinds};
pub use wrapped::Wrapped;
