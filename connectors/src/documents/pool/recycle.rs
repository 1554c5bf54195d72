//! When a worker is replaced: LibreOffice leaks memory, and gets slower long before the memory matters.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::super::protocol::JobResult;
use super::config::Recycle;

/// Conversions of a class that are compared: this many first ones with this many last ones.
const SAMPLE: usize = 5;
/// Most classes of documents whose times are recorded.
const MAX_CLASSES: usize = 16;
/// Shorter CPU times are not compared: the clock has steps of 10 ms.
const MIN_CPU_TIME: Duration = Duration::from_millis(200);

/// Why a worker was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RestartReason {
    /// It had converted its number of documents.
    Jobs,
    /// It used too much memory.
    Memory,
    /// It had become slow.
    Slow,
    /// It had reached its maximum age.
    Age,
    /// A job exceeded its deadline.
    Timeout,
    /// It crashed, or sent an invalid message.
    Crash,
}

impl RestartReason {
    /// The value of the metrics label `reason`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Memory => "memory",
            Self::Slow => "slow",
            Self::Age => "age",
            Self::Timeout => "timeout",
            Self::Crash => "crash",
        }
    }
}

/// Decides when one worker is replaced, by its conversions so far.
pub(super) struct RecyclePolicy {
    limits: Recycle,
    max_jobs: u32,
    jobs: u32,
    started: Instant,
    rss: u64,
    timings: HashMap<String, Timings>,
}

/// CPU times of one class of documents, in milliseconds.
#[derive(Default)]
struct Timings {
    first: Vec<u64>,
    last: Vec<u64>,
}

impl RecyclePolicy {
    /// `share` scales the number of conversions. It is about 1 and differs, so that workers are not all replaced
    /// together.
    pub(super) fn new(limits: &Recycle, share: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "about a hundred")]
        let max_jobs = (f64::from(limits.jobs) * share) as u32;
        let timings = HashMap::new();
        Self { limits: *limits, max_jobs: max_jobs.max(1), jobs: 0, started: Instant::now(), rss: 0, timings }
    }

    /// Whether the worker has not finished a job yet.
    pub(super) fn has_done_nothing(&self) -> bool {
        self.jobs == 0
    }

    /// Records a conversion of a document of `class`; returns why the worker should be replaced now, if it should.
    pub(super) fn record(&mut self, class: &str, result: &JobResult) -> Option<RestartReason> {
        self.jobs += 1;
        self.rss = result.rss;
        let slow = self.is_slow(class, result.ms_cpu);
        if self.rss > self.limits.rss {
            Some(RestartReason::Memory)
        } else if self.jobs >= self.max_jobs {
            Some(RestartReason::Jobs)
        } else if slow {
            Some(RestartReason::Slow)
        } else if self.started.elapsed() > self.limits.age {
            Some(RestartReason::Age)
        } else {
            None
        }
    }

    fn is_slow(&mut self, class: &str, ms: u64) -> bool {
        if !self.timings.contains_key(class) && self.timings.len() >= MAX_CLASSES {
            return false;
        }
        let timings = self.timings.entry(class.to_owned()).or_default();
        if timings.first.len() < SAMPLE {
            timings.first.push(ms);
            return false;
        }
        if timings.last.len() == SAMPLE {
            timings.last.remove(0);
        }
        timings.last.push(ms);
        if timings.last.len() < SAMPLE {
            return false;
        }
        let (first, last) = (median(&timings.first), median(&timings.last));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
        let slower = last as f64 > first.max(1) as f64 * self.limits.slowdown;
        slower && u128::from(last) >= MIN_CPU_TIME.as_millis()
    }
}

fn median(times: &[u64]) -> u64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(ms_cpu: u64, rss: u64) -> JobResult {
        JobResult { ms_load: 0, ms_save: 0, ms_cpu, rss, pages: 1, files: Vec::new() }
    }

    #[test]
    fn a_worker_is_replaced_after_its_jobs_or_when_it_has_grown() {
        let limits = Recycle { jobs: 10, ..Recycle::default() };
        let mut policy = RecyclePolicy::new(&limits, 0.8);
        let reasons: Vec<_> = (0..8).map(|_| policy.record("a", &result(1, 1))).collect();
        assert_eq!(reasons[..7], [None; 7]);
        assert_eq!(reasons[7], Some(RestartReason::Jobs));
        assert_eq!(RecyclePolicy::new(&limits, 1.0).record("a", &result(1, 1 << 40)), Some(RestartReason::Memory));
    }

    #[test]
    fn a_worker_is_replaced_when_its_conversions_get_slower() {
        let mut policy = RecyclePolicy::new(&Recycle::default(), 1.0);
        assert!((0..20).all(|_| policy.record("a", &result(200, 1)).is_none()));
        assert!((0..20).all(|_| policy.record("other", &result(900, 1)).is_none()));
        let slow = (0..5).filter_map(|_| policy.record("a", &result(310, 1))).collect::<Vec<_>>();
        assert_eq!(slow.first(), Some(&RestartReason::Slow));
    }
}
