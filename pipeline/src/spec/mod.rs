//! The config as the user wrote it: TOML with places, read into specs, every problem collected.
//!
//! Nothing here touches the network, a device or a model. Each crate reads its own sections with [`Section::read`];
//! `caudal check` stops when all of them are read and checked.

mod document;
mod flow;
pub mod memory;
mod parts;
mod problem;
mod secret;
mod section;
mod size;
mod stage;

pub use document::{Document, Sources};
pub use flow::{BacklogSpec, FlowSettings, FlowSpec, RetrySpec};
pub use parts::PART;
pub use problem::{Place, Problem, Problems};
pub use secret::{Secret, SecretError, SecretText};
pub use section::{Places, Section};
pub use size::ByteSize;
pub use stage::{Overflow, QueueSpec, StageSettings, StageSpec};
