//! How fast flows drain and how much waits before them: for `Retry-After`, `expected_wait_ms` and admission.
//!
//! Counters are sampled once a second while the gateway is served; a rate is the faster of the last 2 s and the last 10 s,
//! so that a flow that just woke is not taken for slow. A flow that rests keeps the rate it had when it last worked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pipeline::{Backlog, FlowName, Lane, Transport};
use tokio::time::Instant;

use crate::problem::DEFAULT_RETRY_AFTER;
use crate::state::Figures;

/// Time between two samples.
pub const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

/// Samples kept per flow: 10 s and one more.
const SAMPLES: usize = 11;

/// How long an answer of the broker about a backlog is taken for current.
const BACKLOG_AGE: Duration = Duration::from_millis(250);

/// Bounds of `Retry-After`, in seconds: some clients ignore values above 60.
const RETRY_AFTER: std::ops::RangeInclusive<u64> = 1..=60;

/// See the module.
pub struct Pace {
    transport: Arc<dyn Transport>,
    figures: Figures,
    known: Mutex<Known>,
}

/// Bounded by the number of flows.
#[derive(Default)]
struct Known {
    samples: HashMap<String, VecDeque<(Instant, u64)>>,
    /// Events per second.
    rates: HashMap<String, f64>,
    backlogs: HashMap<FlowName, (Instant, Backlog)>,
}

/// What a request of a flow has before it.
#[derive(Clone, Copy, Debug)]
pub struct Outlook {
    /// Events that wait in its lane and in those served before it.
    pub position: u64,
    /// Until it is done, if a rate is known.
    pub wait: Option<Duration>,
}

impl Pace {
    pub fn new(transport: Arc<dyn Transport>, figures: Figures) -> Self {
        Self { transport, figures, known: Mutex::default() }
    }

    /// Takes one sample of every flow that runs in this process.
    pub fn sample(&self) {
        let now = Instant::now();
        let figures = (self.figures)();
        let mut known = self.lock();
        for flow in figures {
            let ended = flow.done + flow.failed;
            let samples = known.samples.entry(flow.name.clone()).or_default();
            samples.push_back((now, ended));
            if samples.len() > SAMPLES {
                samples.pop_front();
            }
            if let Some(rate) = fastest(samples) {
                known.rates.insert(flow.name, rate);
            }
        }
    }

    /// What a new request faces.
    pub async fn outlook(&self, flow: &FlowName, lane: Lane) -> Outlook {
        let backlog = self.backlog(flow).await;
        let position = match lane {
            Lane::Interactive => backlog.interactive,
            Lane::Bulk => backlog.interactive + backlog.bulk,
        };
        let rate = self.lock().rates.get(flow.as_str()).copied();
        Outlook { position, wait: rate.map(|rate| Duration::from_secs_f64((position as f64 / rate).min(86_400.0))) }
    }

    /// Seconds until a full flow has worked off what waits.
    pub async fn retry_after(&self, flow: &FlowName) -> u64 {
        let wait = self.outlook(flow, Lane::Bulk).await.wait;
        let seconds = wait.map_or(DEFAULT_RETRY_AFTER, |wait| wait.as_secs_f64().ceil() as u64);
        seconds.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end())
    }

    /// What waits in the broker, at most [`BACKLOG_AGE`] old; nothing where the broker does not say.
    pub async fn backlog(&self, flow: &FlowName) -> Backlog {
        if let Some((asked, backlog)) = self.lock().backlogs.get(flow)
            && asked.elapsed() < BACKLOG_AGE
        {
            return *backlog;
        }
        let backlog = match tokio::time::timeout(Duration::from_secs(1), self.transport.backlog(flow)).await {
            Ok(Ok(backlog)) => backlog,
            Ok(Err(error)) => {
                tracing::debug!(%flow, %error, "backlog unknown");
                Backlog::default()
            }
            Err(_) => Backlog::default(),
        };
        self.lock().backlogs.insert(flow.clone(), (Instant::now(), backlog));
        backlog
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events per second over the last 2 or all samples, whichever is more; `None` if nothing ended.
fn fastest(samples: &VecDeque<(Instant, u64)>) -> Option<f64> {
    let (now, count) = *samples.back()?;
    let since = |(then, before): &(Instant, u64)| {
        let seconds = now.duration_since(*then).as_secs_f64();
        (seconds > 0.0).then(|| count.saturating_sub(*before) as f64 / seconds)
    };
    let recent = samples.len().checked_sub(3).and_then(|index| samples.get(index)).and_then(since);
    let long = samples.front().and_then(since);
    recent.into_iter().chain(long).max_by(f64::total_cmp).filter(|rate| *rate > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(counts: &[u64]) -> VecDeque<(Instant, u64)> {
        let begun = Instant::now();
        counts.iter().enumerate().map(|(second, count)| (begun + SAMPLE_PERIOD * second as u32, *count)).collect()
    }

    #[test]
    fn the_rate_is_that_of_the_time_at_work() {
        assert_eq!(fastest(&samples(&[0, 10, 20])), Some(10.0));
        assert_eq!(fastest(&samples(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 20])), Some(10.0));
        assert_eq!(fastest(&samples(&[7, 7, 7])), None);
        assert_eq!(fastest(&samples(&[7])), None);
    }
}
