//! What a flow declares: its stages, queues, retries and durable edges, and the checks across them.
//!
//! Nothing here touches the network, a device or a model. Each crate reads its own sections with [`Section::read`];
//! `caudal check` stops when all of them are read and checked.

mod durable_cuts;
mod flow;
mod flow_check;
pub mod memory_budget;
mod stage;

pub use durable_cuts::PART;
pub use flow::{BacklogSpec, FlowSettings, FlowSpec, RetrySpec};
pub use stage::{QueueSpec, StageSettings, StageSpec};

pub use crate::config::{
    ByteSize, Document, Located, Place, Places, Position, Problem, Problems, Secret, SecretError, SecretText, Section,
    Severity, Sources, did_you_mean,
};
pub use crate::edges::Overflow;
