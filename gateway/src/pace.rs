//! How fast flows drain and how much waits before them: for `Retry-After`, `expected_wait_ms` and admission.
//!
//! The broker is asked once a second, and again when somebody must know: what waits, and how many events ever left the
//! queue. The rate is that of the time in which something waited: an idle flow is not a slow one. A flow that rests keeps
//! the rate it had. It does not matter which process works on the flow.
//!
//! A lane that refused is taken for full until the broker says otherwise, so that a refusal costs neither a body nor a
//! publish.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pipeline::{Backlog, FlowName, Lane, Transport};
use tokio::time::Instant;

use crate::problem::DEFAULT_RETRY_AFTER;
use crate::state::FlowEntry;

/// Time between two samples.
pub const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

/// How far back the rate looks.
const WINDOW: Duration = Duration::from_secs(10);

/// The latest busy time that counts alone, where it was faster than all of the window: a flow that just woke is not slow.
const RECENT: Duration = Duration::from_secs(2);

/// Samples kept of a flow, at most.
const SAMPLES: usize = 64;

/// How long an answer of the broker about a backlog is taken for current.
const BACKLOG_AGE: Duration = Duration::from_millis(250);

/// How long the broker may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Bounds of `Retry-After`, in seconds: some clients ignore values above 60.
const RETRY_AFTER: std::ops::RangeInclusive<u64> = 1..=60;

/// `Retry-After` of a flow whose backlog has not moved for as long as the rate looks back.
const STALLED_RETRY_AFTER: f64 = 30.0;

/// Clients that were refused together come back over this much longer, as a part of their wait.
const SPREAD: f64 = 0.25;

/// See the module.
pub struct Pace {
    transport: Arc<dyn Transport>,
    /// By flow; made once, so bounded by the config.
    tracks: HashMap<FlowName, Track>,
}

/// What is known of one flow.
struct Track {
    /// Events that a lane may hold.
    limit: u64,
    /// The later parts of the flow, through which an event must go as well.
    then: Vec<FlowName>,
    known: Mutex<Known>,
    /// Held by whoever asks the broker, so that many who want to know ask once.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    samples: VecDeque<Sample>,
    /// Events per second; 0 while a backlog does not move.
    rate: Option<f64>,
    latest: Option<(Instant, Backlog)>,
    /// When a lane refused, until it is seen to have room.
    refused: [Option<Instant>; 2],
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    ended: u64,
    /// Whether something waited.
    busy: bool,
}

/// What a request of a flow has before it.
#[derive(Clone, Copy, Debug)]
pub struct Outlook {
    /// Events that wait in its lane and in those served before it, in all parts of the flow.
    pub position: u64,
    /// Until it is done, if a rate is known.
    pub wait: Option<Duration>,
}

impl Pace {
    pub fn new(transport: Arc<dyn Transport>, flows: &[FlowEntry]) -> Self {
        let track = |flow: &FlowEntry| Track {
            limit: flow.backlog.into(),
            then: flow.then.clone(),
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        };
        let tracks = flows.iter().map(|flow| (flow.name.clone(), track(flow))).collect();
        Self { transport, tracks }
    }

    /// Asks the broker about every flow.
    pub async fn sample(&self) {
        futures_util::future::join_all(self.tracks.keys().map(|flow| self.backlog(flow))).await;
    }

    /// What a new request faces; `None` where the broker does not say.
    pub async fn outlook(&self, flow: &FlowName, lane: Lane) -> Option<Outlook> {
        let mut outlook = Outlook { position: 0, wait: Some(Duration::ZERO) };
        for part in std::iter::once(flow).chain(self.tracks.get(flow).iter().flat_map(|track| &track.then)) {
            let backlog = self.backlog(part).await?;
            let before = match lane {
                Lane::Interactive => backlog.interactive,
                Lane::Bulk => backlog.interactive + backlog.bulk,
            };
            let rate = self.tracks.get(part).and_then(|track| track.lock().rate).filter(|rate| *rate > 0.0);
            let wait = match rate {
                Some(rate) => Some(Duration::from_secs_f64((before as f64 / rate).min(86_400.0))),
                None => (before == 0).then_some(Duration::ZERO),
            };
            outlook.position += before;
            outlook.wait = outlook.wait.zip(wait).map(|(sum, wait)| sum + wait);
        }
        Some(outlook)
    }

    /// Seconds until a full flow has worked off what waits, and a part of that more, other for each who asks. From what is
    /// known: whoever is refused does not wait for the broker.
    pub fn retry_after(&self, flow: &FlowName) -> u64 {
        let seconds = self.tracks.get(flow).map_or(DEFAULT_RETRY_AFTER as f64, |track| {
            let known = track.lock();
            let waiting = known.latest.map_or(0, |(_, backlog)| backlog.interactive + backlog.bulk).max(track.limit);
            match known.rate {
                Some(rate) if rate > 0.0 => waiting as f64 / rate,
                Some(_) => STALLED_RETRY_AFTER,
                None => DEFAULT_RETRY_AFTER as f64,
            }
        });
        let spread = seconds * (1.0 + SPREAD * rand::random::<f64>());
        (spread.ceil() as u64).clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end())
    }

    /// Notes that the broker refused an event of this lane.
    pub fn refused(&self, flow: &FlowName, lane: Lane) {
        if let Some(track) = self.tracks.get(flow) {
            track.lock().refused[lane as usize] = Some(Instant::now());
        }
    }

    /// Whether a lane that refused has not been seen with room since.
    pub async fn is_full(&self, flow: &FlowName, lane: Lane) -> bool {
        let Some(track) = self.tracks.get(flow) else { return false };
        if track.lock().refused[lane as usize].is_none() {
            return false;
        }
        // Taking in a fresh answer removes the mark where there is room; no answer proves nothing.
        self.backlog(flow).await;
        track.lock().refused[lane as usize].is_some()
    }

    /// Flows that refuse, and flows whose backlog does not move, each in a sentence.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        for (flow, track) in &self.tracks {
            let known = track.lock();
            for lane in Lane::ALL.into_iter().filter(|lane| known.refused[*lane as usize].is_some()) {
                troubles.push(format!("flow {flow} refuses {} events: {} wait", lane.as_str(), track.limit));
            }
            if known.rate == Some(0.0) && known.latest.is_some_and(|(_, backlog)| !backlog.is_empty()) {
                troubles.push(format!("the backlog of flow {flow} does not move: no worker, or one that waits"));
            }
        }
        troubles.sort();
        troubles
    }

    /// What waits in the broker, at most [`BACKLOG_AGE`] old; `None` where the broker does not say.
    pub async fn backlog(&self, flow: &FlowName) -> Option<Backlog> {
        let track = self.tracks.get(flow)?;
        if let Some(backlog) = track.current() {
            return Some(backlog);
        }
        let _asking = track.asking.lock().await;
        // Somebody else may have asked meanwhile.
        if let Some(backlog) = track.current() {
            return Some(backlog);
        }
        let asked = Instant::now();
        match tokio::time::timeout(ANSWER_LIMIT, self.transport.backlog(flow)).await {
            Ok(Ok(backlog)) => {
                track.take_in(asked, backlog);
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

impl Track {
    fn current(&self) -> Option<Backlog> {
        let (asked, backlog) = self.lock().latest?;
        (asked.elapsed() < BACKLOG_AGE).then_some(backlog)
    }

    fn take_in(&self, asked: Instant, backlog: Backlog) {
        let mut known = self.lock();
        known.latest = Some((asked, backlog));
        for lane in Lane::ALL {
            let mark = &mut known.refused[lane as usize];
            if mark.is_some_and(|refused| refused < asked) && backlog.of(lane) < self.limit {
                *mark = None;
            }
        }
        known.samples.push_back(Sample {
            at: asked,
            ended: backlog.ended,
            busy: backlog.interactive + backlog.bulk > 0,
        });
        while known.samples.len() > SAMPLES
            || known.samples.front().is_some_and(|oldest| asked.duration_since(oldest.at) > WINDOW + SAMPLE_PERIOD)
        {
            known.samples.pop_front();
        }
        if let Some(rate) = rate(&known.samples) {
            known.rate = Some(rate);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events per second of the busy time, of all of it or of the recent part, whichever is more. `None` if there was too
/// little of it to tell.
fn rate(samples: &VecDeque<Sample>) -> Option<f64> {
    /// Busy time that tells something.
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
        // Idle, then one busy second.
        assert_eq!(rate(&samples(&[(0, false), (1, false), (2, true), (32, false)])), Some(30.0));
        assert_eq!(rate(&samples(&[(7, false), (7, false), (7, false)])), None);
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
}
