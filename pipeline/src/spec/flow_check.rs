//! Checks of a flow that need more than one key: names referred to, payload types between stages, limits.

use super::FlowSpec;
use crate::config::{Place, Problems};
use crate::operator::Emits;
use crate::operator_kind::{DeclaredNames, KeyProblem};
use crate::payload::PayloadKind;

impl FlowSpec {
    /// Checks that need the whole config: names that are referred to, payload types between stages, limits.
    pub fn check(&self, place: &Place, names: &DeclaredNames, problems: &mut Problems) {
        for stage in &self.stages {
            for problem in stage.operator.key_problems(names) {
                problems.add(stage.places.of(problem.key), problem.message, problem.remedy);
            }
        }
        if let Some(to) = &self.settings.follow_ups
            && let Some(problem) = KeyProblem::unless_declared("webhooks", "flow", to.as_str(), &names.flows)
        {
            problems.add(place.clone(), problem.message, problem.remedy);
        }
        self.check_unique_names(problems);
        self.check_ends(problems);
        self.check_edges(place, problems);
        self.check_limits(place, problems);
    }

    /// Limits under which no event could ever be done.
    fn check_limits(&self, place: &Place, problems: &mut Problems) {
        let settings = &self.settings;
        if !(0.0..=1.0).contains(&settings.retry.jitter) {
            let message = format!("retry.jitter is {}", settings.retry.jitter);
            problems.add(place.clone(), message, "give a fraction of the pause, from 0 to 1");
        }
        if settings.retry.attempts == 0 {
            problems.add(place.clone(), "retry.attempts is 0", "give at least 1: the first attempt counts");
        }
        if settings.ack_wait_ms == 0 {
            let message = "ack_wait_ms is 0, which is no time to process an event in";
            problems.add(place.clone(), message, "give at least 1000, or leave it out for 1500");
        }
        for stage in self.stages.iter().filter(|stage| stage.settings.timeout_ms == 0) {
            let message = format!("timeout_ms of {} is 0, which is no time to process a batch in", stage.name);
            problems.add(stage.places.of("timeout_ms"), message, "give at least 1, or leave it out for 60000");
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
            let ends = stage.operator.types();
            if let Some((kind, before)) = flowing
                && !ends.takes.contains(&kind)
            {
                let takes: Vec<String> = ends.takes.iter().map(ToString::to_string).collect();
                let message = format!("{} takes {}, but {before} gives {kind}", stage.name, takes.join(" or "));
                problems.add(stage.places.of("use"), message, "put a stage between them that turns one into the other");
            }
            flowing = match ends.gives {
                Emits::Kind(kind) => Some((kind, &stage.name)),
                Emits::Same => flowing,
                Emits::Nothing if index + 1 < self.stages.len() => {
                    let message = format!("{} gives nothing, so the stages after it never run", stage.name);
                    problems.add(stage.places.of("use"), message, "make it the last stage");
                    return;
                }
                Emits::Nothing => None,
            };
        }
    }
}
