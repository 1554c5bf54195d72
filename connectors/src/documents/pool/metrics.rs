//! Metrics of the pool: Prometheus metrics, and a snapshot for readiness and tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::super::protocol::JobResult;
use super::recycle::RestartReason;

/// State and counters of the pool at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolMetrics {
    /// Workers that are busy.
    pub busy: usize,
    /// Jobs that succeeded.
    pub done: u64,
    /// Jobs that were retried after a crash.
    pub retried: u64,
    /// Workers that were replaced, by reason.
    pub restarts: BTreeMap<RestartReason, u64>,
    /// Process ids of the live workers.
    pub processes: Vec<u32>,
}

/// Records events of the pool, in its snapshot and in the metrics of the process.
#[derive(Default)]
pub(super) struct MetricsRecorder(Mutex<PoolMetrics>);

impl MetricsRecorder {
    pub(super) fn snapshot(&self) -> PoolMetrics {
        self.change(|counts| counts.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut PoolMetrics) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn worker_started(&self, pid: u32) {
        let alive = self.change(|counts| {
            counts.processes.push(pid);
            counts.processes.len()
        });
        metrics::gauge!("caudal_office_workers").set(count(alive));
    }

    pub(super) fn worker_ended(&self, pid: u32, reason: Option<RestartReason>) {
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

    pub(super) fn worker_busy(&self, busy: bool) {
        let busy_workers = self.change(|counts| {
            counts.busy = if busy { counts.busy + 1 } else { counts.busy.saturating_sub(1) };
            counts.busy
        });
        metrics::gauge!("caudal_office_workers_busy").set(count(busy_workers));
    }

    pub(super) fn job_done(&self, result: &JobResult) {
        self.change(|counts| counts.done += 1);
        let seconds = |ms: u64| std::time::Duration::from_millis(ms).as_secs_f64();
        metrics::histogram!("caudal_office_load_seconds").record(seconds(result.ms_load));
        metrics::histogram!("caudal_office_save_seconds").record(seconds(result.ms_save));
        #[expect(clippy::cast_precision_loss, reason = "bytes of a process")]
        metrics::histogram!("caudal_office_worker_resident_bytes").record(result.rss as f64);
    }

    pub(super) fn job_retried(&self) {
        self.change(|counts| counts.retried += 1);
        metrics::counter!("caudal_office_retries_total").increment(1);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of processes")]
fn count(workers: usize) -> f64 {
    workers as f64
}
