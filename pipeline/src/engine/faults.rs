//! How often an event has failed here. Deliveries are no measure: a crash delivers the neighbours of its cause again too.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::names::EventId;

/// Events remembered between two of their attempts. Beyond it all are forgotten, which grants them more attempts.
const REMEMBERED: usize = 10_000;

/// Faults by event, in this process.
#[derive(Default)]
pub struct Faults {
    counts: Mutex<HashMap<EventId, u32>>,
}

impl Faults {
    /// One more; how many there are now.
    pub fn add(&self, event: &EventId) -> u32 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= REMEMBERED && !counts.contains_key(event) {
            counts.clear();
        }
        let count = counts.entry(event.clone()).or_default();
        *count += 1;
        *count
    }

    /// The event has ended.
    pub fn forget(&self, event: &EventId) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if !counts.is_empty() {
            counts.remove(event);
        }
    }
}
