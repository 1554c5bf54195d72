//! `/metrics`: the live figures of the engine beside what the parts count themselves.

use std::sync::Arc;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use pipeline::Services;
use pipeline::engine::{Engine, FlowFigures};

/// Upper bounds of every `_seconds` histogram: from a cheap stage to a slow document.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of every histogram that counts events.
const EVENTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Starts collecting; once per process.
///
/// # Errors
/// If something collects already.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_events".into()), &EVENTS)?
        .install_recorder()?;
    describe();
    gateway::describe();
    Ok(handle)
}

fn describe() {
    describe_counter!("caudal_flow_events_total", "Events of a flow by how they ended");
    describe_counter!(
        "caudal_flow_results_refused_total",
        "Results that came second: their request had its terminal already"
    );
    describe_gauge!("caudal_ledger_events", "Ended events that are remembered");
    describe_counter!(
        "caudal_ledger_forgotten_early_total",
        "Ended events forgotten before their time, for want of room"
    );
    describe_gauge!("caudal_picture_bytes", Unit::Bytes, "Memory of decoded pictures");
    describe_gauge!("caudal_flow_in_flight_events", "Events delivered and not settled");
    describe_counter!("caudal_stage_events_total", "Events of a stage by how they left it");
    describe_gauge!("caudal_stage_queued_events", "Events that wait before a stage");
    describe_gauge!("caudal_stage_queue_limit_events", "Events that may wait before a stage");
    describe_gauge!("caudal_stage_queued_bytes", Unit::Bytes, "Memory of the events that wait before a stage");
    describe_gauge!("caudal_stage_workers", "Workers of a stage");
    describe_gauge!("caudal_stage_in_flight_events", "Events in the hands of a stage's workers");
    describe_gauge!("caudal_stage_waits_for_dependency", "1 while what the stage depends on is out of reach");
    describe_gauge!("caudal_stage_busy_seconds_total", Unit::Seconds, "Worker time spent working");
    describe_gauge!(
        "caudal_stage_blocked_seconds_total",
        Unit::Seconds,
        "Worker time spent waiting for room downstream"
    );
    describe_histogram!("caudal_event_duration_seconds", Unit::Seconds, "From delivery to settlement of an event");
    describe_histogram!("caudal_stage_batch_duration_seconds", Unit::Seconds, "One batch of a stage");
    describe_histogram!("caudal_stage_batch_events", "Events in a batch");
}

/// What the gateway calls to answer `/metrics`.
pub fn renderer(
    handle: PrometheusHandle,
    engine: Engine,
    services: Arc<Services>,
) -> Arc<dyn Fn() -> String + Send + Sync> {
    Arc::new(move || {
        engine.figures().iter().for_each(publish);
        publish_shared(&services);
        handle.run_upkeep();
        handle.render()
    })
}

fn publish(flow: &FlowFigures) {
    let ends = [("done", flow.done), ("failed", flow.failed), ("retried", flow.retried), ("repeated", flow.repeated)];
    for (result, count) in ends {
        counter!("caudal_flow_events_total", "flow" => flow.name.clone(), "result" => result).absolute(count);
    }
    counter!("caudal_flow_results_refused_total", "flow" => flow.name.clone()).absolute(flow.refused);
    gauge!("caudal_flow_in_flight_events", "flow" => flow.name.clone()).set(flow.in_flight as f64);
    for stage in &flow.stages {
        let labels = [("flow", flow.name.clone()), ("stage", stage.name.clone())];
        for (result, count) in [("done", stage.done), ("failed", stage.failed), ("dropped", stage.dropped)] {
            let [flow, stage] = labels.clone();
            counter!("caudal_stage_events_total", &[flow, stage, ("result", result.into())]).absolute(count);
        }
        gauge!("caudal_stage_queued_events", &labels).set(stage.queued as f64);
        gauge!("caudal_stage_queue_limit_events", &labels).set(stage.queue_limit as f64);
        gauge!("caudal_stage_queued_bytes", &labels).set(stage.queued_bytes as f64);
        gauge!("caudal_stage_in_flight_events", &labels).set(stage.in_flight as f64);
        gauge!("caudal_stage_workers", &labels).set(stage.workers as f64);
        gauge!("caudal_stage_waits_for_dependency", &labels).set(f64::from(u8::from(stage.waits)));
        seconds("caudal_stage_busy_seconds_total", &labels, stage.busy_seconds);
        seconds("caudal_stage_blocked_seconds_total", &labels, stage.blocked_seconds);
    }
}

/// What all flows of the process share.
fn publish_shared(services: &Services) {
    let (known, forgotten_early) = services.ledger.figures();
    gauge!("caudal_ledger_events").set(known as f64);
    counter!("caudal_ledger_forgotten_early_total").absolute(forgotten_early);
    gauge!("caudal_picture_bytes").set(services.pixels.taken() as f64);
}

/// Counters hold whole numbers: a gauge carries the fraction, its name says that it only grows.
fn seconds(name: &'static str, labels: &[(&'static str, String); 2], value: f64) {
    gauge!(name, labels).set(value);
}
