//! The config as the user wrote it: TOML with places, read into specs, every problem collected.
//!
//! Nothing here touches the network, a device or a model. Each crate reads its own sections with [`Section::read`];
//! `caudal check` stops when all of them are read and checked.

mod document;
mod flow;
mod problem;
mod section;
mod size;

pub use document::{Document, Sources};
pub use flow::{BacklogSpec, FlowSettings, FlowSpec, Overflow, QueueSpec, RetrySpec, StageSettings, StageSpec};
pub use problem::{Place, Problem, Problems};
pub use section::{Places, Section};
pub use size::ByteSize;
