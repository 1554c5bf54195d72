//! What operators may ask for beside the broker: one file for each outside, as a trait.
//!
//! Connectors implement the traits, the assembly [offers](crate::Services::offer) them, and an operator asks for one by
//! its trait. A new outside is a file here with a trait and its [`Service`](crate::Service): the engine knows none.

pub mod documents;
mod index;
mod models;
pub mod templates;
pub mod webhook;

pub use index::{Hit, IndexError, Nearest, Point, Space, VectorIndex, point_id};
pub use models::{ImageModel, ModelCard};
