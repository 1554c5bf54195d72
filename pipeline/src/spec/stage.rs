//! `[[flow.NAME.stage]]`: the engine's keys of a stage, beside those of its operator.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::config::{ByteSize, Places, Problems, Section, did_you_mean};
use crate::edges::{Overflow, QueueLimits};
use crate::operator::Batching;
use crate::operator_kind::{OperatorKind, OperatorSpec};

const ENGINE_KEYS: [&str; 8] = ["use", "name", "workers", "queue", "batch", "timeout_ms", "durable", "order_by"];

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
    /// The places of the keys.
    pub places: Places,
}

impl StageSpec {
    /// The batching in effect: the config's, or else the operator's.
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
    /// Shown in metrics and the console; unique within the flow.
    name: Option<String>,
    /// Instances that work side by side.
    #[serde(default = "one")]
    pub workers: NonZeroUsize,
    /// Bounds of the queue before the stage.
    #[serde(default)]
    pub queue: QueueSpec,
    /// Overrides the operator's batching.
    batch: Option<BatchSpec>,
    /// Longest time one batch may take, in milliseconds; after that it counts as failed.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Whether this stage receives its events through the broker's disk: they survive a crash of the stages before, and
    /// the stages from here on may run in another process.
    #[serde(default)]
    pub durable: bool,
    /// The parameter by which events keep their order: those with the same value are worked on one after another, each
    /// when the one before has ended. An event without it is ordered by its own id.
    pub order_by: Option<String>,
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
    /// Most events that wait.
    pub events: NonZeroUsize,
    /// Most bytes of them in memory, decoded pixels included; by default an even share of the process's memory.
    pub bytes: Option<ByteSize>,
    /// What happens to an event that finds no room.
    pub overflow: Overflow,
}

impl QueueSpec {
    /// The bytes in effect.
    #[must_use]
    pub fn bytes(&self) -> ByteSize {
        self.bytes.unwrap_or(UNDIVIDED)
    }

    /// The bounds in effect.
    pub(crate) fn limits(&self) -> QueueLimits {
        QueueLimits { events: self.events.get(), bytes: self.bytes().as_usize(), overflow: self.overflow }
    }
}

/// Before the memory budget is divided, and in tests of a single flow.
const UNDIVIDED: ByteSize = ByteSize::mib(64);

impl Default for QueueSpec {
    fn default() -> Self {
        Self { events: NonZeroUsize::new(64).expect("64 is not zero"), bytes: None, overflow: Overflow::Block }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchSpec {
    events: Option<NonZeroUsize>,
    #[serde(default)]
    linger_ms: u64,
}

/// Reads one `[[flow.NAME.stage]]`.
pub fn read_stage(mut section: Section<'_>, kinds: &[OperatorKind], problems: &mut Problems) -> Option<StageSpec> {
    let places = section.places();
    let settings: StageSettings = section.split_off(&ENGINE_KEYS).read(problems)?;
    let Some(kind) = kinds.iter().find(|kind| kind.name == settings.kind.get_ref()) else {
        let known: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
        let message = format!("no operator is named {:?}", settings.kind.get_ref());
        let otherwise = format!("use one of: {}", known.join(", "));
        let remedy = did_you_mean(settings.kind.get_ref(), known, &otherwise);
        problems.add(settings.kind.span(), message, remedy);
        return None;
    };
    let operator = (kind.read)(section, problems)?;
    let name = settings.name.clone().unwrap_or_else(|| kind.name.to_owned());
    Some(StageSpec { name, kind: kind.name, settings, operator, places })
}
