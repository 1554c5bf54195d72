//! Warnings of a config that can be used, but in which something is without effect.

use std::collections::{BTreeMap, BTreeSet};

use gateway::spec::RouteSpec;
use nats::NatsSpec;
use pipeline::spec::{FlowSpec, Place, Problems};
use pipeline::{Emits, ImageModel};

/// Where names are declared.
pub struct DeclaredPlaces {
    /// `[model.NAME]`.
    pub models: BTreeMap<String, Place>,
    /// `[flow.NAME]`.
    pub flows: BTreeMap<String, Place>,
}

/// Adds all warnings. `flows` are whole, not cut into parts.
pub fn add(
    places: &DeclaredPlaces,
    flows: &[FlowSpec],
    routes: &[RouteSpec],
    nats: &NatsSpec,
    problems: &mut Problems,
) {
    unused_models(places, flows, problems);
    for flow in flows {
        untaken_output(flow, problems);
    }
    // Whoever reaches the broker may publish to any flow.
    let has_publishers = nats.url.is_some() || nats.listen.is_some() || nats.mqtt.is_some();
    if routes.is_empty() && !flows.iter().any(|flow| flow.settings.open) {
        if flows.is_empty() || !has_publishers {
            let message = "the config has no route and no open flow: the service takes no requests";
            problems.warn(None, message, "add a [[route]], or `open = true` to a flow");
        }
    } else if !has_publishers {
        unreachable_flows(places, flows, routes, problems);
    }
}

fn unused_models(places: &DeclaredPlaces, flows: &[FlowSpec], problems: &mut Problems) {
    let needs = flows.iter().flat_map(|flow| &flow.stages).flat_map(|stage| stage.operator.needs());
    let used: BTreeSet<String> =
        needs.filter(|need| need.is::<dyn ImageModel>()).filter_map(|need| Some(need.name()?.to_owned())).collect();
    for (name, place) in places.models.iter().filter(|(name, _)| !used.contains(*name)) {
        problems.warn(place.clone(), format!("no stage uses model {name:?}"), "use it in a stage, or remove it");
    }
}

/// The last stage emits something, and does nothing else.
fn untaken_output(flow: &FlowSpec, problems: &mut Problems) {
    let Some(last) = flow.stages.last() else { return };
    let what = match last.operator.types().gives {
        Emits::Nothing => return,
        Emits::Kind(kind) => format!("the {kind} that it gives"),
        Emits::Same => "what it gives".to_owned(),
    };
    if !last.operator.has_effect() {
        let message = format!("{} is the last stage of flow {}, and nobody takes {what}", last.name, flow.name);
        problems.warn(
            last.places.of("use"),
            message,
            "add a stage that does, such as respond or publish, or remove it",
        );
    }
}

/// Flows that neither a route nor another flow submits to. A flow reached only from such a flow is left out: it is the same
/// mistake.
fn unreachable_flows(places: &DeclaredPlaces, flows: &[FlowSpec], routes: &[RouteSpec], problems: &mut Problems) {
    let routed = routes.iter().filter_map(|route| route.flow.as_ref());
    let published = flows.iter().flat_map(|flow| &flow.stages).filter_map(|stage| stage.operator.submits_to());
    let followed = flows.iter().filter_map(|flow| flow.settings.follow_ups.as_ref());
    let reached: BTreeSet<&str> = routed.chain(published).chain(followed).map(|name| name.as_str()).collect();
    for flow in flows.iter().filter(|flow| !flow.settings.open && !reached.contains(flow.name.as_str())) {
        let place = places.flows.get(flow.name.as_str()).cloned();
        let message = format!("no event reaches flow {}: no route, flow or publisher submits to it", flow.name);
        problems.warn(place, message, "name it in a [[route]], set `open = true` or `listen` of [nats], or remove it");
    }
}
