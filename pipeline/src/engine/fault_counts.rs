//! Counts how often each event has failed in this process.
//!
//! The broker's delivery count will not do: a crash also redelivers the neighbours of the event that caused it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::names::EventId;

/// Events remembered between two of their attempts. Beyond it all are forgotten, which grants them more attempts.
const REMEMBERED: usize = 10_000;

/// Faults by event, in this process. Holds only events that will be redelivered.
#[derive(Default)]
pub struct FaultCounts {
    counts: Mutex<HashMap<EventId, u32>>,
}

impl FaultCounts {
    /// Counts one more fault of the event; returns its count, from 1.
    pub fn add(&self, event: &EventId) -> u32 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= REMEMBERED && !counts.contains_key(event) {
            counts.clear();
        }
        let count = counts.entry(event.clone()).or_default();
        *count += 1;
        *count
    }

    /// Forgets an event that has ended.
    pub fn forget(&self, event: &EventId) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if !counts.is_empty() {
            counts.remove(event);
        }
    }
}
