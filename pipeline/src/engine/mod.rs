//! Runs flows: bounded queues, workers, settlement, drain.
//!
//! ```text
//! source (per lane) ─▶ queue ─▶ workers of stage 1 ─▶ queue ─▶ workers of stage 2 ─▶ …
//!        ▲ permits                                                      │ last descendant settled
//!        └────────────── settler: terminal result, ledger, then ack ◀───┘
//! ```

mod bookkeeper;
mod cancel;
mod edge;
mod faults;
mod feed;
mod flow;
mod follow_up;
mod image_admission;
mod meter;
mod outage;
mod output;
mod queue;
mod root;
mod settle;
mod spans;
mod stage;

pub use cancel::Cancellations;
pub use flow::{Busy, Engine, Flow, Running};
pub use meter::{FlowFigures, StageFigures};
pub use output::Output;
pub(crate) use output::Sink;
pub(crate) use queue::Queue;
pub(crate) use root::{Place, Response, Root};
