//! The memory budget: `[process] memory`, divided over everything that holds events.
//!
//! | part | holds |
//! | --- | --- |
//! | ¼ | the program itself, models, the index |
//! | ¼ | events that wait between stages: queues without `bytes` share what the others leave |
//! | ¼ | decoded pixels, from the moment an image is decoded to the end of its last stage |
//! | ⅛ | deliveries: events as they come from the broker, an even share for each lane |
//! | ⅛ | bodies and results that the gateway holds in full |
//!
//! The parts are bounds, not reservations: an idle service uses none of them.

use super::FlowSpec;
use crate::config::{ByteSize, Problems};

pub use crate::config::DEFAULT_MEMORY as DEFAULT;

/// Least memory of a lane's deliveries: several of the longest events.
const LEAST_DELIVERIES: ByteSize = ByteSize::mib(4);

/// Least memory of a queue: several of the longest inline events.
const LEAST_QUEUE: ByteSize = ByteSize::mib(1);

/// The shares that are not divided over queues and lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// Decoded pixels.
    pub pixels: ByteSize,
    /// Bodies in the gateway.
    pub bodies: ByteSize,
}

/// Gives every queue and lane its share; reports queues that do not fit.
pub fn divide(budget: ByteSize, flows: &mut [FlowSpec], problems: &mut Problems) -> MemoryShares {
    divide_queues(budget, flows, problems);
    // A durable edge begins another queue in the broker.
    let edges = flows.iter().flat_map(|flow| &flow.stages).filter(|stage| stage.settings.durable).count();
    let lanes = 2 * (flows.len() + edges).max(1) as u64;
    let deliveries = ByteSize((budget.0 / 8 / lanes).max(LEAST_DELIVERIES.0));
    flows.iter_mut().for_each(|flow| flow.delivery_bytes = deliveries);
    MemoryShares { pixels: ByteSize(budget.0 / 4), bodies: ByteSize(budget.0 / 8) }
}

fn divide_queues(budget: ByteSize, flows: &mut [FlowSpec], problems: &mut Problems) {
    let all = budget.0 / 4;
    let queues = flows.iter().flat_map(|flow| &flow.stages);
    let named: u64 = queues.clone().filter_map(|stage| stage.settings.queue.bytes).map(|bytes| bytes.0).sum();
    let unnamed = queues.clone().filter(|stage| stage.settings.queue.bytes.is_none()).count() as u64;
    let needed = named + unnamed * LEAST_QUEUE.0;
    if needed > all {
        let largest = queues.max_by_key(|stage| stage.settings.queue.bytes);
        let place = largest.map(|stage| stage.places.of("queue")).unwrap_or_default();
        let message = format!(
            "the queues of all stages need {} together, but of memory = {budget} they get a quarter, {}",
            ByteSize(needed),
            ByteSize(all)
        );
        let remedy = format!("lower queue.bytes, or set memory of [process] to at least {}", ByteSize(4 * needed));
        problems.add(place, message, remedy);
        return;
    }
    let share = (all - named).checked_div(unnamed).map_or(LEAST_QUEUE, ByteSize);
    for stage in flows.iter_mut().flat_map(|flow| &mut flow.stages) {
        stage.settings.queue.bytes.get_or_insert(share);
    }
}
