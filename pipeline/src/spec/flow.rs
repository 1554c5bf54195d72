//! `[flow.NAME]`: the keys that the engine reads, and the list of stages.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::stage::{StageSpec, read_stage};
use crate::config::{ByteSize, Problems, Section};
use crate::edges::Overflow;
use crate::names::FlowName;
use crate::operator_kind::OperatorKind;

/// A flow as declared.
pub struct FlowSpec {
    /// The `NAME` of `[flow.NAME]`, or of a later part of it (see [`FlowSpec::into_parts`]).
    pub name: FlowName,
    /// The `NAME` of `[flow.NAME]`.
    pub whole: FlowName,
    /// The part that this one's durable edge leads to; `None` for the last part.
    pub next: Option<FlowName>,
    /// Whether every event that comes in from outside must have a request to answer.
    pub answers: bool,
    /// Whether the whole flow answers, so that somebody waits for the end of each event.
    pub is_awaited: bool,
    /// Most bytes of the deliveries of one lane; set by the memory budget.
    pub delivery_bytes: ByteSize,
    /// The keys of the flow itself.
    pub settings: FlowSettings,
    /// In order; the first receives submitted events.
    pub stages: Vec<StageSpec>,
}

/// The keys of `[flow.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowSettings {
    /// One sentence for the console and the API description.
    pub about: String,
    /// Whether `POST /v1/flows/NAME` is served.
    pub open: bool,
    /// Bounds of the flow's queue in the broker.
    pub backlog: BacklogSpec,
    /// Attempts and the pauses between them.
    pub retry: RetrySpec,
    /// How long the broker waits for a progress report before it redelivers an event, in milliseconds.
    pub ack_wait_ms: u64,
    /// Deadline of a request of this flow, in milliseconds after it was accepted; 0 for none.
    pub deadline_ms: u64,
    /// The flow that gets the follow-up of every request that has one: the result of a request with a webhook.
    #[serde(rename = "webhooks")]
    pub follow_ups: Option<FlowName>,
}

impl Default for FlowSettings {
    fn default() -> Self {
        Self {
            about: String::new(),
            open: false,
            backlog: BacklogSpec::default(),
            retry: RetrySpec::default(),
            // The work of a killed process is resumed after it, while people wait. Half of it is left for delays of a
            // progress report; if they are longer, other processes do the same work a second time.
            ack_wait_ms: 1_500,
            deadline_ms: 0,
            follow_ups: None,
        }
    }
}

/// `backlog = { events = …, bytes = … }`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BacklogSpec {
    /// Most events per lane, unacknowledged ones included.
    pub events: u32,
    /// Most bytes of the whole flow, inline payloads only.
    pub bytes: ByteSize,
}

impl Default for BacklogSpec {
    fn default() -> Self {
        Self { events: 10_000, bytes: ByteSize(1 << 30) }
    }
}

/// `retry = { attempts = …, backoff_ms = […] }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySpec {
    /// Times an event may fail in one process before it is dead-lettered; a redelivery after a crash does not count.
    pub attempts: u32,
    /// Pause before the second, third, … attempt; the last value repeats.
    pub backoff_ms: Vec<u64>,
    /// How long a stage waits for an unavailable dependency before its events count as failed, in milliseconds; 0 for as long
    /// as it lasts.
    pub outage_ms: u64,
    /// How much longer a pause may be, as a fraction of itself, from 0 to 1: events that failed together are not
    /// redelivered together.
    pub jitter: f64,
}

impl Default for RetrySpec {
    fn default() -> Self {
        // No limit of an outage: an event that was accepted is not given up because something else is away.
        Self { attempts: 3, backoff_ms: vec![200, 1_000, 5_000], outage_ms: 0, jitter: 0.2 }
    }
}

impl RetrySpec {
    /// How long a stage waits for an unavailable dependency; `None` for as long as it lasts.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        (self.outage_ms > 0).then(|| Duration::from_millis(self.outage_ms))
    }

    /// The pause after the failure of attempt number `attempt` (from 1), with jitter.
    #[must_use]
    pub fn pause_after(&self, attempt: u32) -> Duration {
        let index = (attempt.max(1) as usize - 1).min(self.backoff_ms.len().saturating_sub(1));
        let pause = Duration::from_millis(self.backoff_ms.get(index).copied().unwrap_or(0));
        pause.mul_f64(1.0 + self.jitter.clamp(0.0, 1.0) * rand::random::<f64>())
    }
}

/// Bytes of deliveries before the memory budget is divided, and in tests of a single flow.
const UNDIVIDED: ByteSize = ByteSize::mib(16);

/// Events in flight beyond those that fit, for flows that leave events out.
const LOSSY_MARGIN: usize = 64;

impl FlowSpec {
    /// Reads a flow's section; problems in one stage do not hide those of the next.
    pub fn read(
        name: &Spanned<String>,
        mut section: Section<'_>,
        kinds: &[OperatorKind],
        problems: &mut Problems,
    ) -> Option<Self> {
        let place = section.place();
        let token = FlowName::new(name.get_ref())
            .map_err(|why| problems.add(name.span(), format!("flow name {:?} {why}", name.get_ref()), "rename it"))
            .ok();
        let has_stages = section.has("stage");
        let sections = section.take_list("stage", problems);
        let declared = sections.len();
        let stages: Vec<StageSpec> =
            sections.into_iter().filter_map(|stage| read_stage(stage, kinds, problems)).collect();
        let settings = section.read(problems);
        if !has_stages {
            let remedy = format!("add [[flow.{}.stage]] with `use = \"…\"`", name.get_ref());
            problems.add(place.clone(), "the flow has no stage", remedy);
        }
        let name = token?;
        let answers = stages.iter().any(|stage| stage.operator.answers());
        let whole = name.clone();
        let delivery_bytes = UNDIVIDED;
        let settings = settings?;
        let flow = Self { name, whole, next: None, answers, is_awaited: answers, delivery_bytes, settings, stages };
        let complete = flow.stages.len() == declared && declared > 0;
        complete.then_some(flow)
    }

    /// Events that may be delivered and unsettled at once: as many as the queues and workers hold, and some more if an edge
    /// leaves events out, because otherwise none would ever arrive that has no room.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let held = |stage: &StageSpec| {
            stage.settings.queue.events.get() + stage.settings.workers.get() * stage.batching().events
        };
        let lossy = self.stages.iter().any(|stage| stage.settings.queue.overflow != Overflow::Block);
        self.stages.iter().map(held).sum::<usize>() + if lossy { LOSSY_MARGIN } else { 0 }
    }
}
