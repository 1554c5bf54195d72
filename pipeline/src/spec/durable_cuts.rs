//! Durable cuts: a flow is cut before each durable stage into parts that the broker joins.
//!
//! A stage with `durable = true` begins a new part, named `<flow>--<stage>`. A part is a flow like any other, with a queue,
//! a backlog and dead letters of its own, so that any process may work on it.

use super::FlowSpec;
use crate::config::{Place, Problems};
use crate::names::{FlowName, MAX_TOKEN_BYTES};

/// Separates the name of a flow from the stage that begins one of its parts. No flow name may contain it.
pub const PART: &str = "--";

impl FlowSpec {
    /// The parts of the flow, cut before each durable stage, in order. Call it after the flow was checked.
    #[must_use]
    pub fn into_parts(self) -> Vec<Self> {
        let Self { name: whole, answers, delivery_bytes, settings, stages, .. } = self;
        let mut parts: Vec<Self> = Vec::new();
        for stage in stages {
            // The first stage receives its events through the broker anyway.
            let begins = parts.is_empty() || stage.settings.durable;
            if begins {
                let name = if parts.is_empty() { whole.clone() } else { part_name(&whole, &stage.name) };
                if let Some(before) = parts.last_mut() {
                    before.next = Some(name.clone());
                }
                parts.push(Self {
                    // Events from the part before carry their request in the envelope.
                    answers: answers && parts.is_empty(),
                    is_awaited: answers,
                    name,
                    whole: whole.clone(),
                    next: None,
                    delivery_bytes,
                    settings: settings.clone(),
                    stages: Vec::new(),
                });
            }
            parts.last_mut().expect("the first stage begins a part").stages.push(stage);
        }
        parts
    }

    /// The parameter by which the events of this part keep their order; `None` if they keep none.
    #[must_use]
    pub fn order_by(&self) -> Option<&str> {
        self.stages.iter().find_map(|stage| stage.settings.order_by.as_deref())
    }

    /// Reports names that look like those of parts, edges that would lose answers, and contradicting orders.
    pub(super) fn check_edges(&self, place: &Place, problems: &mut Problems) {
        if self.name.as_str().contains(PART) {
            let message =
                format!("flow name {:?} contains {PART:?}, which stands before the parts of a flow", self.name);
            problems.add(place.clone(), message, "rename it");
        }
        let mut multiplied_by: Option<&str> = None;
        for stage in &self.stages {
            if stage.settings.durable {
                if let Some(before) = multiplied_by {
                    let message = format!(
                        "{before} makes several events of one, and {} receives them through the broker: nobody could tell when \
                         all of them have ended",
                        stage.name
                    );
                    problems.add(stage.places.of("durable"), message, format!("put the durable edge before {before}"));
                }
                let length = self.name.as_str().len() + PART.len() + stage.name.len();
                if FlowName::new(&format!("{}{PART}{}", self.name, stage.name)).is_err() {
                    let message = format!(
                        "stage {:?} cannot begin a part of the flow: the part's name has {length} bytes, at most {MAX_TOKEN_BYTES} of A-Z a-z 0-9 _ - are allowed",
                        stage.name
                    );
                    problems.add(stage.places.of("durable"), message, "give the stage a shorter plain `name`");
                }
            }
            if stage.operator.multiplies() {
                multiplied_by = Some(&stage.name);
            }
        }
        let mut orders = self.stages.iter().filter_map(|stage| Some((stage, stage.settings.order_by.as_deref()?)));
        if let Some((_, first)) = orders.next() {
            for (stage, _) in orders.filter(|(_, other)| *other != first) {
                let message =
                    format!("{} has another order_by, but the events already keep the order of {first:?}", stage.name);
                problems.add(stage.places.of("order_by"), message, "keep one order in a flow");
            }
        }
    }
}

fn part_name(flow: &FlowName, stage: &str) -> FlowName {
    FlowName::new(&format!("{flow}{PART}{stage}")).unwrap_or_else(|_| flow.child(stage, 0))
}
