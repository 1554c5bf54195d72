//! `[flow.NAME]`: what the engine itself reads, and the checks across stages.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::stage::{Overflow, StageSpec, read_stage};
use super::{ByteSize, Place, Problems, Section};
use crate::names::FlowName;
use crate::operator::Gives;
use crate::operator_kind::{Complaint, Names, OperatorKind};
use crate::payload::PayloadKind;

/// A flow as declared.
pub struct FlowSpec {
    /// The `NAME` of `[flow.NAME]`, or of a later part of it (see [`FlowSpec::into_parts`]).
    pub name: FlowName,
    /// The `NAME` of `[flow.NAME]`.
    pub whole: FlowName,
    /// The part that goes on with what this one hands over.
    pub next: Option<FlowName>,
    /// Whether every event that comes in from outside has a requester.
    pub answers: bool,
    /// Bytes of the deliveries of one lane.
    pub delivery_bytes: ByteSize,
    /// The keys beside the stages.
    pub settings: FlowSettings,
    /// In order; the first takes what is submitted.
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
    /// Bound of what waits in the broker, per lane.
    pub backlog: BacklogSpec,
    /// Attempts and the pauses between them.
    pub retry: RetrySpec,
    /// How long the broker waits for a sign of life before it hands an event to another worker, in milliseconds.
    pub ack_wait_ms: u64,
    /// How long a request of this flow stays worth doing, in milliseconds; 0 for ever.
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
            // Short enough that work of a killed process resumes soon; progress is reported at a third of it.
            ack_wait_ms: 15_000,
            deadline_ms: 0,
            follow_ups: None,
        }
    }
}

/// `backlog = { events = …, bytes = … }`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BacklogSpec {
    /// Events per lane, un-acked included.
    pub events: u32,
    /// Bytes of the whole flow, inline payloads only.
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
    /// Times an event may fail in one process before it is given up; a delivery that a crash repeats is no failure.
    pub attempts: u32,
    /// Pause before the second, third, … attempt; the last value repeats.
    pub backoff_ms: Vec<u64>,
    /// How long a stage waits for what it depends on before that counts as a failure of its events, in milliseconds.
    pub outage_ms: u64,
    /// How much longer a pause may be, as a part of itself, from 0 to 1: events that failed together do not come back
    /// together.
    pub jitter: f64,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { attempts: 3, backoff_ms: vec![200, 1_000, 5_000], outage_ms: 60_000, jitter: 0.2 }
    }
}

impl RetrySpec {
    /// The pause after the failure of attempt number `attempt` (from 1).
    #[must_use]
    pub fn pause_after(&self, attempt: u32) -> Duration {
        let index = (attempt.max(1) as usize - 1).min(self.backoff_ms.len().saturating_sub(1));
        let pause = Duration::from_millis(self.backoff_ms.get(index).copied().unwrap_or(0));
        pause.mul_f64(1.0 + self.jitter.clamp(0.0, 1.0) * rand::random::<f64>())
    }
}

/// Bytes of deliveries where no memory budget was divided, as in tests of a single flow.
const UNDIVIDED: ByteSize = ByteSize::mib(16);

/// Events in flight beyond what fits, where some are left out.
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
        let sections = section.take_list("stage", problems);
        let declared = sections.len();
        let stages: Vec<StageSpec> =
            sections.into_iter().filter_map(|stage| read_stage(stage, kinds, problems)).collect();
        let settings = section.read(problems);
        if declared == 0 {
            let remedy = format!("add [[flow.{}.stage]] with `use = \"…\"`", name.get_ref());
            problems.add(place.clone(), "the flow has no stage", remedy);
        }
        let name = token?;
        let answers = stages.iter().any(|stage| stage.operator.answers());
        let whole = name.clone();
        let delivery_bytes = UNDIVIDED;
        let flow = Self { name, whole, next: None, answers, delivery_bytes, settings: settings?, stages };
        let complete = flow.stages.len() == declared && declared > 0;
        complete.then_some(flow)
    }

    /// Checks that need the whole config: names that are referred to, types between stages, time limits.
    pub fn check(&self, place: &Place, names: &Names, problems: &mut Problems) {
        for stage in &self.stages {
            for complaint in stage.operator.complaints(names) {
                problems.add(stage.places.of(complaint.key), complaint.message, complaint.remedy);
            }
        }
        if let Some(to) = &self.settings.follow_ups
            && let Some(complaint) = Complaint::unless_declared("webhooks", "flow", to.as_str(), &names.flows)
        {
            problems.add(place.clone(), complaint.message, complaint.remedy);
        }
        self.check_unique_names(problems);
        self.check_ends(problems);
        self.check_edges(place, problems);
        if !(0.0..=1.0).contains(&self.settings.retry.jitter) {
            let message = format!("retry.jitter is {}", self.settings.retry.jitter);
            problems.add(place.clone(), message, "give a part of the pause, from 0 to 1");
        }
        if self.settings.retry.attempts == 0 {
            problems.add(place.clone(), "retry.attempts is 0", "give at least 1: the first attempt counts");
        }
    }

    fn check_unique_names(&self, problems: &mut Problems) {
        for (index, stage) in self.stages.iter().enumerate() {
            if self.stages[..index].iter().any(|earlier| earlier.name == stage.name) {
                let message = format!("two stages of flow {} are named {:?}", self.name, stage.name);
                problems.add(stage.places.of("use"), message, "give one of them a `name`");
            }
        }
    }

    fn check_ends(&self, problems: &mut Problems) {
        let mut flowing: Option<(PayloadKind, &str)> = None;
        for (index, stage) in self.stages.iter().enumerate() {
            let ends = stage.operator.ends();
            if let Some((kind, before)) = flowing
                && !ends.takes.contains(&kind)
            {
                let takes: Vec<String> = ends.takes.iter().map(ToString::to_string).collect();
                let message = format!("{} takes {}, but {before} gives {kind}", stage.name, takes.join(" or "));
                problems.add(stage.places.of("use"), message, "put a stage between them that turns one into the other");
            }
            flowing = match ends.gives {
                Gives::Kind(kind) => Some((kind, &stage.name)),
                Gives::Same => flowing,
                Gives::Nothing if index + 1 < self.stages.len() => {
                    let message = format!("{} gives nothing, so the stages after it never run", stage.name);
                    problems.add(stage.places.of("use"), message, "make it the last stage");
                    return;
                }
                Gives::Nothing => None,
            };
        }
    }

    /// Events that may be delivered and unsettled at once: as many as the queues and workers hold, and some more where an
    /// edge leaves out what has no room, for else nothing would ever come that has none.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let held = |stage: &StageSpec| {
            stage.settings.queue.events.get() + stage.settings.workers.get() * stage.batching().events
        };
        let lossy = self.stages.iter().any(|stage| stage.settings.queue.overflow != Overflow::Block);
        self.stages.iter().map(held).sum::<usize>() + if lossy { LOSSY_MARGIN } else { 0 }
    }
}
