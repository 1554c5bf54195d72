//! Runs flows: sources, workers, settlement, drain.
//!
//! ```text
//! source (per lane) ─▶ queue ─▶ workers of stage 1 ─▶ queue ─▶ workers of stage 2 ─▶ …
//!        ▲ places                                                       │ last descendant settled
//!        └────────────── settler: terminal result, ledger, then ack ◀───┘
//! ```

mod cancellation_listener;
mod fault_counts;
mod flow;
mod flow_metrics;
mod flow_shared;
mod follow_up;
mod image_admission;
mod in_flight_limit;
mod interruption;
mod joined_answers;
mod ledger_reader;
mod outage;
mod running;
mod settler;
mod source_reader;
mod spans;
mod stage;
mod suspects;
mod tasks;
mod worker;

pub use flow::{Busy, Flow};
pub use flow_metrics::{FlowStats, StageStats};
#[cfg(test)]
pub(crate) use flow_shared::FlowShared;
pub use running::{Engine, Running};

pub use crate::edges::Output;
pub use crate::event::Cancellations;
