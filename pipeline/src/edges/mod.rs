//! What joins two stages: a bounded queue with a lane policy, or a durable edge through the broker; and the output that
//! writes to either.

mod blocked_time;
mod durable_edge;
mod lane_policy;
mod output;
mod queue;
mod room;

pub(crate) use blocked_time::BlockedTime;
pub(crate) use durable_edge::DurableEdge;
pub(crate) use lane_policy::BULK_SLICE;
pub use output::Output;
pub(crate) use output::{Downstream, ProgressReporter};
pub use queue::Overflow;
pub(crate) use queue::{BatchLimits, Queue, QueueLimits};
