//! Measures how fast flows drain and how much waits before them: for admission, `Retry-After` and `expected_wait_ms`.
//!
//! The broker is asked once a second, and again when a request needs to know: how many events wait, and how many ever
//! left the queue. The rate counts only the time in which something waited, because an idle flow is not a slow one. An
//! idle flow keeps its last rate. It does not matter which process works on the flow.
//!
//! A lane that refused an event is taken for full until the broker reports room, so that further refusals cost neither
//! a body nor a publish.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pipeline::{Backlog, FlowName, Lane, Transport};
use tokio::time::Instant;

use super::retry_after;
use crate::flow_entry::FlowEntry;

/// Time between two samples.
pub const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

/// How far back the rate looks.
const WINDOW: Duration = Duration::from_secs(10);

/// The latest busy time that counts alone if it was faster than the whole window: a flow that just woke is not slow.
const RECENT: Duration = Duration::from_secs(2);

/// Samples of a flow, at most.
const MAX_SAMPLES: usize = 64;

/// How long the broker's answer about a backlog is current.
const BACKLOG_AGE: Duration = Duration::from_millis(250);

/// How long the broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The drain rates of all flows; see the module.
pub struct DrainRates {
    transport: Arc<dyn Transport>,
    /// By flow; filled once, so the config bounds it.
    gauges: HashMap<FlowName, DrainGauge>,
}

/// The drain rate of one flow.
struct DrainGauge {
    /// Events that a lane may hold.
    limit: u64,
    /// The later parts of the flow, through which an event must go as well.
    then: Vec<FlowName>,
    history: Mutex<History>,
    /// Held while the broker is asked, so that many requests at once ask once.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct History {
    samples: VecDeque<Sample>,
    /// Events per second; 0 while a backlog does not move.
    rate: Option<f64>,
    latest: Option<(Instant, Backlog)>,
    /// When a lane refused an event, until the broker reports room.
    refused: [Option<Instant>; 2],
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    ended: u64,
    /// Whether something waited.
    busy: bool,
}

/// What a new request of a flow has before it.
#[derive(Clone, Copy, Debug)]
pub struct QueueOutlook {
    /// Events that wait in its lane and in those served before it, in all parts of the flow.
    pub position: u64,
    /// Expected time until it is done, if a rate is known.
    pub wait: Option<Duration>,
}

impl DrainRates {
    pub fn new(transport: Arc<dyn Transport>, flows: &[FlowEntry]) -> Self {
        let gauge = |flow: &FlowEntry| DrainGauge {
            limit: flow.backlog.into(),
            then: flow.then.clone(),
            history: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        };
        let gauges = flows.iter().map(|flow| (flow.name.clone(), gauge(flow))).collect();
        Self { transport, gauges }
    }

    /// Asks the broker about every flow.
    pub async fn sample(&self) {
        futures_util::future::join_all(self.gauges.keys().map(|flow| self.backlog(flow))).await;
    }

    /// What a new request faces; `None` if the broker does not answer.
    pub async fn outlook(&self, flow: &FlowName, lane: Lane) -> Option<QueueOutlook> {
        let mut outlook = QueueOutlook { position: 0, wait: Some(Duration::ZERO) };
        for part in std::iter::once(flow).chain(self.gauges.get(flow).iter().flat_map(|gauge| &gauge.then)) {
            let backlog = self.backlog(part).await?;
            let before = match lane {
                Lane::Interactive => backlog.interactive,
                Lane::Bulk => backlog.interactive + backlog.bulk,
            };
            let rate = self.gauges.get(part).and_then(|gauge| gauge.lock().rate).filter(|rate| *rate > 0.0);
            let wait = match rate {
                Some(rate) => Some(Duration::from_secs_f64((before as f64 / rate).min(86_400.0))),
                None => (before == 0).then_some(Duration::ZERO),
            };
            outlook.position += before;
            outlook.wait = outlook.wait.zip(wait).map(|(sum, wait)| sum + wait);
        }
        Some(outlook)
    }

    /// `Retry-After` of a full flow, in seconds. Uses what is known already: a refused client does not wait for the
    /// broker.
    pub fn retry_after(&self, flow: &FlowName) -> u64 {
        let Some(gauge) = self.gauges.get(flow) else { return retry_after::seconds(0, None) };
        let history = gauge.lock();
        let waiting = history.latest.map_or(0, |(_, backlog)| backlog.interactive + backlog.bulk).max(gauge.limit);
        retry_after::seconds(waiting, history.rate)
    }

    /// Records that the broker refused an event of this lane.
    pub fn note_refusal(&self, flow: &FlowName, lane: Lane) {
        if let Some(gauge) = self.gauges.get(flow) {
            gauge.lock().refused[lane as usize] = Some(Instant::now());
        }
    }

    /// Whether a lane has refused an event and the broker has reported no room since.
    pub async fn is_full(&self, flow: &FlowName, lane: Lane) -> bool {
        let Some(gauge) = self.gauges.get(flow) else { return false };
        if gauge.lock().refused[lane as usize].is_none() {
            return false;
        }
        // A fresh answer that reports room removes the mark; no answer proves nothing.
        self.backlog(flow).await;
        gauge.lock().refused[lane as usize].is_some()
    }

    /// Flows that refuse events, and flows whose backlog does not move, each in a sentence.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        for (flow, gauge) in &self.gauges {
            let history = gauge.lock();
            for lane in Lane::ALL.into_iter().filter(|lane| history.refused[*lane as usize].is_some()) {
                troubles.push(format!("flow {flow} refuses {} events: {} wait", lane.as_str(), gauge.limit));
            }
            if history.rate == Some(0.0) && history.latest.is_some_and(|(_, backlog)| !backlog.is_empty()) {
                troubles.push(format!("the backlog of flow {flow} does not move: no worker, or one that waits"));
            }
        }
        troubles.sort();
        troubles
    }

    /// What waits in the broker, at most [`BACKLOG_AGE`] old; `None` if the broker does not answer.
    pub async fn backlog(&self, flow: &FlowName) -> Option<Backlog> {
        let gauge = self.gauges.get(flow)?;
        if let Some(backlog) = gauge.current() {
            return Some(backlog);
        }
        let _asking = gauge.asking.lock().await;
        // Another request may have asked meanwhile.
        if let Some(backlog) = gauge.current() {
            return Some(backlog);
        }
        let asked = Instant::now();
        match tokio::time::timeout(ANSWER_TIMEOUT, self.transport.backlog(flow)).await {
            Ok(Ok(backlog)) => {
                gauge.add_sample(asked, backlog);
                Some(backlog)
            }
            Ok(Err(error)) => {
                tracing::debug!(%flow, %error, "backlog unknown");
                None
            }
            Err(_) => None,
        }
    }
}

impl DrainGauge {
    fn current(&self) -> Option<Backlog> {
        let (asked, backlog) = self.lock().latest?;
        (asked.elapsed() < BACKLOG_AGE).then_some(backlog)
    }

    fn add_sample(&self, asked: Instant, backlog: Backlog) {
        let mut history = self.lock();
        history.latest = Some((asked, backlog));
        for lane in Lane::ALL {
            let mark = &mut history.refused[lane as usize];
            if mark.is_some_and(|refused| refused < asked) && backlog.of(lane) < self.limit {
                *mark = None;
            }
        }
        history.samples.push_back(Sample {
            at: asked,
            ended: backlog.ended,
            busy: backlog.interactive + backlog.bulk > 0,
        });
        while history.samples.len() > MAX_SAMPLES
            || history.samples.front().is_some_and(|oldest| asked.duration_since(oldest.at) > WINDOW + SAMPLE_PERIOD)
        {
            history.samples.pop_front();
        }
        if let Some(rate) = rate(&history.samples) {
            history.rate = Some(rate);
        }
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events per second of the busy time: of all of it or of its recent part, whichever is more. `None` if there was too
/// little busy time to tell.
fn rate(samples: &VecDeque<Sample>) -> Option<f64> {
    /// Least busy time from which a rate follows.
    const LEAST: Duration = Duration::from_millis(200);
    let (mut busy, mut ended, mut recent) = (Duration::ZERO, 0, None);
    for (later, earlier) in samples.iter().rev().zip(samples.iter().rev().skip(1)) {
        if earlier.busy {
            busy += later.at.duration_since(earlier.at);
            ended += later.ended.saturating_sub(earlier.ended);
        }
        if busy >= RECENT && recent.is_none() {
            recent = Some(ended as f64 / busy.as_secs_f64());
        }
    }
    let all = (busy >= LEAST).then(|| ended as f64 / busy.as_secs_f64())?;
    // A short standstill is no rate yet.
    (all > 0.0 || busy >= WINDOW).then(|| recent.map_or(all, |recent: f64| recent.max(all)))
}

#[cfg(test)]
mod tests {
    use pipeline::testing::MemoryTransport;

    use super::*;

    fn samples(counts: &[(u64, bool)]) -> VecDeque<Sample> {
        let begun = Instant::now();
        let sample = |(second, (ended, busy)): (usize, &(u64, bool))| Sample {
            at: begun + SAMPLE_PERIOD * second as u32,
            ended: *ended,
            busy: *busy,
        };
        counts.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn the_rate_is_that_of_the_time_in_which_something_waited() {
        assert_eq!(rate(&samples(&[(0, true), (10, true), (20, true)])), Some(10.0));
    }

    #[test]
    fn idle_time_does_not_lower_the_rate() {
        assert_eq!(rate(&samples(&[(0, false), (1, false), (2, true), (32, false)])), Some(30.0));
    }

    #[test]
    fn an_idle_flow_has_no_rate() {
        assert_eq!(rate(&samples(&[(7, false), (7, false), (7, false)])), None);
    }

    #[test]
    fn one_sample_is_no_rate() {
        assert_eq!(rate(&samples(&[(7, true)])), None);
    }

    #[test]
    fn a_standstill_is_a_rate_only_after_the_whole_window() {
        assert_eq!(rate(&samples(&[(7, true); 5])), None);
        assert_eq!(rate(&samples(&[(7, true); 11])), Some(0.0));
    }

    #[test]
    fn what_just_woke_is_not_slow() {
        let mut counts = vec![(0, true); 8];
        counts.extend([(0, true), (50, true), (100, true)]);
        assert_eq!(rate(&samples(&counts)), Some(50.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_refused_is_full_until_the_broker_reports_room() {
        let flow = FlowName::new("narrow").unwrap();
        let entry = FlowEntry {
            name: flow.clone(),
            about: String::new(),
            open: false,
            deadline: None,
            takes_json: false,
            backlog: 1,
            then: Vec::new(),
        };
        let rates = DrainRates::new(Arc::new(MemoryTransport::with_flows([("narrow", 1)])), &[entry]);
        assert!(!rates.is_full(&flow, Lane::Bulk).await);
        rates.backlog(&flow).await.unwrap();
        rates.note_refusal(&flow, Lane::Bulk);
        assert!(rates.is_full(&flow, Lane::Bulk).await, "the answer is older than the refusal");
        tokio::time::advance(BACKLOG_AGE * 2).await;
        assert!(!rates.is_full(&flow, Lane::Bulk).await);
    }
}
