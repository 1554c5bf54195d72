//! Metrics of every stage and flow, for `/v1/flows`, the console and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::Histogram;
use serde::Serialize;

use crate::edges::Queue;
use crate::names::FlowName;

/// Counters of one stage. Written per batch, read at any time; each is exact, together they may be one batch apart.
pub struct StageMetrics {
    batch_seconds: Histogram,
    batch_events: Histogram,
    /// Events in the hands of workers: raised by `begin_batch`, lowered by `end_batch`.
    in_flight: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    batches: AtomicU64,
    /// Worker time without `blocked_ns`.
    busy_ns: AtomicU64,
    blocked_ns: AtomicU64,
    /// Nanoseconds per event of recent batches, smoothed; 0 until the first one.
    event_ns: AtomicU64,
}

/// The last batch counts for a quarter of the time an event is expected to take.
const SMOOTHING: u64 = 4;

/// Counters of one flow.
#[derive(Default)]
pub struct FlowMetrics {
    /// Deliveries begun.
    pub delivered: AtomicU64,
    /// Roots that ended in success.
    pub done: AtomicU64,
    /// Roots that ended in failure.
    pub failed: AtomicU64,
    /// Roots handed back to the broker for another attempt.
    pub retried: AtomicU64,
    /// Terminal results that the broker refused because the request had one.
    pub refused: AtomicU64,
    /// Copies of events that had ended; acknowledged without work.
    pub repeated: AtomicU64,
    /// Roots delivered and not settled.
    pub in_flight: AtomicU64,
}

/// The metrics of one stage at one moment. Counters grow from the start of the process.
#[derive(Clone, Debug, Serialize)]
pub struct StageStats {
    /// Unique within the flow.
    pub name: String,
    /// The operator's kind.
    #[serde(rename = "use")]
    pub kind: &'static str,
    /// Workers side by side.
    pub workers: usize,
    /// Events that wait.
    pub queued: usize,
    /// Most events that may wait.
    pub queue_limit: usize,
    /// Bytes that wait.
    pub queued_bytes: usize,
    /// Events in the hands of workers.
    pub in_flight: u64,
    /// Events passed on.
    pub done: u64,
    /// Events rejected or handed back.
    pub failed: u64,
    /// Events left out before the stage because its queue was full.
    pub dropped: u64,
    /// Whether it waits for an unavailable dependency.
    pub waits: bool,
    /// Batches worked on.
    pub batches: u64,
    /// Worker seconds spent working, without those spent waiting for room downstream.
    pub busy_seconds: f64,
    /// Worker seconds spent waiting for room downstream.
    pub blocked_seconds: f64,
}

/// The metrics of one flow at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct FlowStats {
    /// Name of the flow.
    pub name: String,
    /// As the config describes it.
    pub about: String,
    /// Whether `POST /v1/flows/{name}` is served.
    pub open: bool,
    /// Deliveries begun.
    pub delivered: u64,
    /// Events that ended in success.
    pub done: u64,
    /// Events that ended in failure.
    pub failed: u64,
    /// Events handed back for another attempt.
    pub retried: u64,
    /// Results that the broker refused because the request had its terminal result already.
    pub refused: u64,
    /// Copies of events that had ended; acknowledged without work.
    pub repeated: u64,
    /// Events delivered and not settled.
    pub in_flight: u64,
    /// Events of which a write waits because the broker refuses to store it.
    pub waits_for_storage: usize,
    /// In order of the flow.
    pub stages: Vec<StageStats>,
}

/// Identifies a stage in its metrics.
pub struct StageLabel {
    /// Unique within the flow.
    pub name: Arc<str>,
    /// The operator's kind.
    pub kind: &'static str,
    /// Workers side by side.
    pub workers: usize,
}

impl StageMetrics {
    /// Zeros, with the stage's labels.
    pub fn new(flow: &FlowName, stage: &str) -> Self {
        let labels = [("flow", flow.to_string()), ("stage", stage.to_owned())];
        Self {
            batch_seconds: metrics::histogram!("caudal_stage_batch_duration_seconds", &labels),
            batch_events: metrics::histogram!("caudal_stage_batch_events", &labels),
            in_flight: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            blocked_ns: AtomicU64::new(0),
            event_ns: AtomicU64::new(0),
        }
    }

    /// Counts a batch of `events` events as begun.
    pub fn begin_batch(&self, events: usize) {
        self.in_flight.fetch_add(events as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a batch of `events` events as ended, of which `failed` failed.
    pub fn end_batch(&self, events: usize, failed: usize, busy: Duration, blocked: Duration) {
        self.batch_seconds.record(busy.as_secs_f64());
        self.batch_events.record(events as f64);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.in_flight.fetch_sub(events as u64, Ordering::Relaxed);
        self.done.fetch_add(events.saturating_sub(failed) as u64, Ordering::Relaxed);
        self.failed.fetch_add(failed as u64, Ordering::Relaxed);
        let worked = nanos(busy.saturating_sub(blocked));
        self.busy_ns.fetch_add(worked, Ordering::Relaxed);
        let (latest, before) = (worked / events.max(1) as u64, self.event_ns.load(Ordering::Relaxed));
        let smoothed = if before == 0 { latest } else { before - before / SMOOTHING + latest / SMOOTHING };
        self.event_ns.store(smoothed, Ordering::Relaxed);
        self.blocked_ns.fetch_add(nanos(blocked), Ordering::Relaxed);
    }

    /// The number of events in a batch that takes about `slice`; at least 1, unlimited before the first batch ended.
    pub fn fitting(&self, slice: Duration) -> usize {
        let slice = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
        match self.event_ns.load(Ordering::Relaxed) {
            0 => usize::MAX,
            event => usize::try_from(slice / event).unwrap_or(usize::MAX).max(1),
        }
    }

    /// Events in the hands of workers.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The metrics now. `waits` is for the caller to set.
    pub fn stats(&self, label: &StageLabel, queue: &Queue) -> StageStats {
        let seconds = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Ordering::Relaxed)).as_secs_f64();
        StageStats {
            name: label.name.to_string(),
            kind: label.kind,
            workers: label.workers,
            queued: queue.len(),
            queue_limit: queue.capacity,
            queued_bytes: queue.bytes(),
            in_flight: self.in_flight(),
            done: self.done.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            dropped: queue.dropped(),
            waits: false,
            batches: self.batches.load(Ordering::Relaxed),
            busy_seconds: seconds(&self.busy_ns),
            blocked_seconds: seconds(&self.blocked_ns),
        }
    }
}
