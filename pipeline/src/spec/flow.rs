//! `[flow.NAME]` and its `[[flow.NAME.stage]]`s: what the engine itself reads, and the checks across stages.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{ByteSize, Place, Places, Problems, Section};
use crate::kind::{Names, OperatorKind, OperatorSpec};
use crate::names::FlowName;
use crate::operator::{Batching, Gives};
use crate::payload::PayloadKind;

/// A flow as declared.
pub struct FlowSpec {
    /// The `NAME` of `[flow.NAME]`.
    pub name: FlowName,
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
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { attempts: 3, backoff_ms: vec![200, 1_000, 5_000] }
    }
}

impl RetrySpec {
    /// The pause after the failure of attempt number `attempt` (from 1).
    #[must_use]
    pub fn pause_after(&self, attempt: u32) -> Duration {
        let index = (attempt.max(1) as usize - 1).min(self.backoff_ms.len().saturating_sub(1));
        Duration::from_millis(self.backoff_ms.get(index).copied().unwrap_or(0))
    }
}

/// A stage as declared: the engine's keys and the operator's spec.
pub struct StageSpec {
    /// `name`, or the operator's kind.
    pub name: String,
    /// `use`.
    pub kind: &'static str,
    /// The engine's keys.
    pub settings: StageSettings,
    /// The operator's own keys.
    pub operator: Box<dyn OperatorSpec>,
    /// Where the keys are.
    pub places: Places,
}

impl StageSpec {
    /// The batching in force.
    #[must_use]
    pub fn batching(&self) -> Batching {
        let default = self.operator.batching();
        match &self.settings.batch {
            None => default,
            Some(batch) => Batching {
                events: batch.events.map_or(default.events, NonZeroUsize::get),
                linger: Duration::from_millis(batch.linger_ms),
            },
        }
    }
}

/// The engine's keys of a stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSettings {
    /// The operator's kind.
    #[serde(rename = "use")]
    kind: Spanned<String>,
    /// Shown in metrics and the console; must be unique within the flow.
    name: Option<String>,
    /// Instances that work side by side.
    #[serde(default = "one")]
    pub workers: NonZeroUsize,
    /// What may wait before the stage.
    #[serde(default)]
    pub queue: QueueSpec,
    /// Overrides the operator's batching.
    batch: Option<BatchSpec>,
    /// Longest time one batch may take, in milliseconds; then it counts as failed.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

/// Far above any healthy batch, so that it only ends what hangs.
fn default_timeout_ms() -> u64 {
    60_000
}

/// `queue = { events = …, bytes = … }`: both hold.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSpec {
    /// Events.
    pub events: NonZeroUsize,
    /// Memory, decoded pixels included.
    pub bytes: ByteSize,
    /// What happens to an event there is no room for.
    pub overflow: Overflow,
}

/// What an edge does when it is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// The stage before waits, and so everything back to the broker. Nothing is lost.
    #[default]
    Block,
    /// The longest waiting event of the lane makes room: for readings of which the newest counts.
    DropOldest,
    /// The event itself is left out.
    DropNewest,
    /// The event ends in failure, as a dead letter where nobody asked for it.
    Reject,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self {
            events: NonZeroUsize::new(64).expect("64 is not zero"),
            bytes: ByteSize::mib(64),
            overflow: Overflow::Block,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchSpec {
    events: Option<NonZeroUsize>,
    #[serde(default)]
    linger_ms: u64,
}

/// Events in flight beyond what fits, where some are left out.
const LOSSY_MARGIN: usize = 64;

const ENGINE_KEYS: [&str; 6] = ["use", "name", "workers", "queue", "batch", "timeout_ms"];

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
        let flow = Self { name: token?, settings: settings?, stages };
        let complete = flow.stages.len() == declared && declared > 0;
        complete.then_some(flow)
    }

    /// Checks that need the whole config: names that are referred to, types between stages, time limits.
    pub fn check(&self, place: &Place, names: &Names, problems: &mut Problems) {
        for stage in &self.stages {
            for complaint in stage.operator.check(names) {
                problems.add(stage.places.of(complaint.key), complaint.message, complaint.remedy);
            }
        }
        self.check_unique_names(problems);
        self.check_ends(problems);
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

    /// Whether every event of the flow has a requester.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.stages.iter().any(|stage| stage.operator.answers())
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

fn read_stage(mut section: Section<'_>, kinds: &[OperatorKind], problems: &mut Problems) -> Option<StageSpec> {
    let places = section.places();
    let settings: StageSettings = section.split_off(&ENGINE_KEYS).read(problems)?;
    let Some(kind) = kinds.iter().find(|kind| kind.name == settings.kind.get_ref()) else {
        let known: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
        let message = format!("no operator is named {:?}", settings.kind.get_ref());
        problems.add(settings.kind.span(), message, format!("use one of: {}", known.join(", ")));
        return None;
    };
    let operator = (kind.read)(section, problems)?;
    let name = settings.name.clone().unwrap_or_else(|| kind.name.to_owned());
    Some(StageSpec { name, kind: kind.name, settings, operator, places })
}
