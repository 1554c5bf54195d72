//! What the pool counts, for metrics and for tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::super::protocol::Done;
use super::recycle::Reason;

/// A view of the pool at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Workers that are converting.
    pub busy: usize,
    /// Conversions done.
    pub done: u64,
    /// Conversions tried a second time.
    pub retried: u64,
    /// Workers that left, by reason.
    pub restarts: BTreeMap<Reason, u64>,
    /// Process ids of the workers that are alive.
    pub processes: Vec<u32>,
}

/// Counts for one pool, and for the metrics of the process.
#[derive(Default)]
pub(super) struct Figures(Mutex<Snapshot>);

impl Figures {
    pub(super) fn snapshot(&self) -> Snapshot {
        self.change(|counts| counts.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn born(&self, pid: u32) {
        let alive = self.change(|counts| {
            counts.processes.push(pid);
            counts.processes.len()
        });
        metrics::gauge!("caudal_office_workers").set(count(alive));
    }

    pub(super) fn gone(&self, pid: u32, reason: Option<Reason>) {
        let alive = self.change(|counts| {
            counts.processes.retain(|process| *process != pid);
            if let Some(reason) = reason {
                *counts.restarts.entry(reason).or_default() += 1;
            }
            counts.processes.len()
        });
        metrics::gauge!("caudal_office_workers").set(count(alive));
        if let Some(reason) = reason {
            metrics::counter!("caudal_office_restarts_total", "reason" => reason.name()).increment(1);
        }
    }

    pub(super) fn busy(&self, more: bool) {
        let busy = self.change(|counts| {
            counts.busy = if more { counts.busy + 1 } else { counts.busy.saturating_sub(1) };
            counts.busy
        });
        metrics::gauge!("caudal_office_workers_busy").set(count(busy));
    }

    pub(super) fn done(&self, done: &Done) {
        self.change(|counts| counts.done += 1);
        let seconds = |ms: u64| std::time::Duration::from_millis(ms).as_secs_f64();
        metrics::histogram!("caudal_office_load_seconds").record(seconds(done.ms_load));
        metrics::histogram!("caudal_office_save_seconds").record(seconds(done.ms_save));
        #[expect(clippy::cast_precision_loss, reason = "bytes of a process")]
        metrics::histogram!("caudal_office_worker_resident_bytes").record(done.rss as f64);
    }

    pub(super) fn retried(&self) {
        self.change(|counts| counts.retried += 1);
        metrics::counter!("caudal_office_retries_total").increment(1);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of processes")]
fn count(workers: usize) -> f64 {
    workers as f64
}
