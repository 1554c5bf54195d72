//! The flows that the gateway knows, as entries of a table.

use std::time::Duration;

use pipeline::spec::FlowSpec;
use pipeline::{FlowName, PayloadKind};

/// What the gateway must know of a flow.
#[derive(Clone, Debug)]
pub struct FlowEntry {
    /// Its name.
    pub name: FlowName,
    /// Its description in the config.
    pub about: String,
    /// Whether `POST /v1/flows/{name}` is served.
    pub open: bool,
    /// How long after its arrival a request is still worth doing; `None` for no limit.
    pub deadline: Option<Duration>,
    /// Whether its first stage takes JSON documents.
    pub takes_json: bool,
    /// Events that each of its lanes may hold.
    pub backlog: u32,
    /// The later parts of the flow, in order, where durable edges cut it; each part has an entry of its own.
    pub then: Vec<FlowName>,
}

impl FlowEntry {
    /// The entries of flows, cut into parts at their durable edges. Only first parts take requests.
    #[must_use]
    pub fn of(parts: &[FlowSpec]) -> Vec<Self> {
        let entry = |spec: &FlowSpec| {
            let takes = spec.stages.first().map(|stage| stage.operator.types().takes).unwrap_or_default();
            let settings = &spec.settings;
            let is_first = spec.name == spec.whole;
            let of_same = parts.iter().filter(|part| is_first && part.whole == spec.whole && part.name != spec.name);
            Self {
                name: spec.name.clone(),
                about: settings.about.clone(),
                open: settings.open && is_first,
                deadline: (settings.deadline_ms > 0).then(|| Duration::from_millis(settings.deadline_ms)),
                takes_json: takes.contains(&PayloadKind::Json),
                backlog: settings.backlog.events,
                then: of_same.map(|part| part.name.clone()).collect(),
            }
        };
        parts.iter().map(entry).collect()
    }
}
