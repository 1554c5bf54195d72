//! The work queue of a flow: submitting events, pulling and settling them, its backlog and its workers, and watching it.

pub mod backlog;
pub mod source;
pub mod submit;
pub mod tail;
pub mod undeclared;
pub mod workers;

mod acknowledgements;
mod deliveries;
mod in_flight;
mod pull_room;
mod puller;
mod pulls;
mod undeleted;
