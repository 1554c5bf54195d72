//! Reading config files: TOML with source positions, merged, taken apart section by section, every problem collected.
//!
//! Nothing here knows what a section means. Specs are made of sections by the crate that runs them.

mod byte_size;
mod loader;
mod problem;
mod secret;
mod section;
mod sources;
mod suggestion;

pub use byte_size::{ByteSize, DEFAULT_MEMORY};
pub use loader::Document;
pub use problem::{Located, Problem, Problems, Severity};
pub use secret::{Secret, SecretError, SecretText};
pub use section::{Places, Section};
pub use sources::{Place, Position, Sources};
pub use suggestion::did_you_mean;
