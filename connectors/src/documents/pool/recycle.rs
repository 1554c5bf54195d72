//! When a worker has had its day: the engine leaks memory, and gets slower long before that matters.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::super::protocol::Done;
use super::config::Recycle;

/// Conversions whose times are summed up, first and last.
const SAMPLE: usize = 5;
/// Classes of documents that are told apart; more are not watched.
const CLASSES: usize = 16;
/// Processor time that is too little to judge by: the clock ticks every 10 ms.
const LEAST: Duration = Duration::from_millis(200);

/// Why a worker left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It had done enough.
    Jobs,
    /// It had grown.
    Memory,
    /// It had become slow.
    Slow,
    /// It was old.
    Age,
    /// It was stopped at a deadline.
    Timeout,
    /// It died, or talked nonsense.
    Crash,
}

impl Reason {
    /// As a label of metrics.
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

/// What one worker has been through.
pub(super) struct Wear {
    bounds: Recycle,
    most_jobs: u32,
    jobs: u32,
    born: Instant,
    rss: u64,
    paces: HashMap<String, Pace>,
}

/// Processor times of one class of documents, in milliseconds.
#[derive(Default)]
struct Pace {
    first: Vec<u64>,
    last: Vec<u64>,
}

impl Wear {
    /// `share` of the usual number of conversions, about 1, so that workers do not all leave together.
    pub(super) fn new(bounds: &Recycle, share: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "about a hundred")]
        let most_jobs = (f64::from(bounds.jobs) * share) as u32;
        let paces = HashMap::new();
        Self { bounds: *bounds, most_jobs: most_jobs.max(1), jobs: 0, born: Instant::now(), rss: 0, paces }
    }

    /// Whether it has not converted anything yet.
    pub(super) fn fresh(&self) -> bool {
        self.jobs == 0
    }

    /// Notes a conversion of a document of `class`; why the worker should leave now, if it should.
    pub(super) fn note(&mut self, class: &str, done: &Done) -> Option<Reason> {
        self.jobs += 1;
        self.rss = done.rss;
        let slow = self.pace(class, done.ms_cpu);
        if self.rss > self.bounds.rss {
            Some(Reason::Memory)
        } else if self.jobs >= self.most_jobs {
            Some(Reason::Jobs)
        } else if slow {
            Some(Reason::Slow)
        } else if self.born.elapsed() > self.bounds.age {
            Some(Reason::Age)
        } else {
            None
        }
    }

    fn pace(&mut self, class: &str, ms: u64) -> bool {
        if !self.paces.contains_key(class) && self.paces.len() >= CLASSES {
            return false;
        }
        let pace = self.paces.entry(class.to_owned()).or_default();
        if pace.first.len() < SAMPLE {
            pace.first.push(ms);
            return false;
        }
        if pace.last.len() == SAMPLE {
            pace.last.remove(0);
        }
        pace.last.push(ms);
        if pace.last.len() < SAMPLE {
            return false;
        }
        let (first, last) = (median(&pace.first), median(&pace.last));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
        let slower = last as f64 > first.max(1) as f64 * self.bounds.slowdown;
        slower && u128::from(last) >= LEAST.as_millis()
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

    fn done(ms_cpu: u64, rss: u64) -> Done {
        Done { ms_load: 0, ms_save: 0, ms_cpu, rss, pages: 1, files: Vec::new() }
    }

    #[test]
    fn a_worker_leaves_after_its_jobs_or_when_it_has_grown() {
        let bounds = Recycle { jobs: 10, ..Recycle::default() };
        let mut wear = Wear::new(&bounds, 0.8);
        let notes: Vec<_> = (0..8).map(|_| wear.note("a", &done(1, 1))).collect();
        assert_eq!(notes[..7], [None; 7]);
        assert_eq!(notes[7], Some(Reason::Jobs));
        assert_eq!(Wear::new(&bounds, 1.0).note("a", &done(1, 1 << 40)), Some(Reason::Memory));
    }

    #[test]
    fn a_worker_leaves_when_the_same_takes_longer_than_it_did() {
        let mut wear = Wear::new(&Recycle::default(), 1.0);
        assert!((0..20).all(|_| wear.note("a", &done(200, 1)).is_none()));
        assert!((0..20).all(|_| wear.note("other", &done(900, 1)).is_none()));
        let slow = (0..5).filter_map(|_| wear.note("a", &done(310, 1))).collect::<Vec<_>>();
        assert_eq!(slow.first(), Some(&Reason::Slow));
    }
}
