//! `/metrics`: the live figures of the engine beside what the parts count themselves.

use std::sync::Arc;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use pipeline::Services;
use pipeline::engine::{Engine, FlowFigures};

/// Upper bounds of every `_seconds` histogram: from a cheap stage to a slow document.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of every histogram that counts events or pictures.
const EVENTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Starts collecting; once per process.
///
/// # Errors
/// If something collects already.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_events".into()), &EVENTS)?
        .set_buckets_for_metric(Matcher::Suffix("_images".into()), &EVENTS)?
        .install_recorder()?;
    describe();
    gateway::describe();
    Ok(handle)
}

/// Counters, and what they count.
const COUNTERS: [(&str, &str); 18] = [
    ("caudal_broker_disconnects_total", "Connections to the broker that were lost, by what they were for."),
    ("caudal_broker_dropped_messages_total", "Messages that a connection had no room for, by what it was for."),
    ("caudal_broker_restarts_total", "Times that the private broker ended and was started again."),
    ("caudal_dead_letters_total", "Events kept as dead letters, by flow."),
    ("caudal_flow_events_total", "Events of a flow by how they ended."),
    ("caudal_flow_results_refused_total", "Results that came second: their request had its terminal already."),
    ("caudal_ledger_forgotten_early_total", "Ended events forgotten before their time, for want of room."),
    ("caudal_office_restarts_total", "Document workers that were replaced, by reason."),
    ("caudal_office_results_reused_total", "Documents that were not converted again."),
    ("caudal_office_retries_total", "Documents tried a second time, after a worker died."),
    ("caudal_result_watchers_closed_total", "Watchers of results that fell behind and read the history again."),
    ("caudal_stage_events_total", "Events of a stage by how they left it."),
    ("caudal_tail_events_lost_total", "Events that a tail was too slow to show."),
    ("caudal_trace_exports_total", "Messages of spans to the collector, by what became of them."),
    ("caudal_trace_spans_total", "Spans of sampled traces made here."),
    ("index_points_total", "Points stored in the embedded index, by collection."),
    ("index_rebuilds_total", "Times that a collection of the embedded index was written anew."),
    ("model_failures_total", "Inferences that failed as a whole, by model."),
];

/// Gauges, and what they show.
const GAUGES: [(&str, Unit, &str); 15] = [
    ("caudal_flow_in_flight_events", Unit::Count, "Events delivered and not settled."),
    ("caudal_ledger_events", Unit::Count, "Ended events that are remembered."),
    ("caudal_office_workers", Unit::Count, "Document workers that are alive, the one kept warm included."),
    ("caudal_office_workers_busy", Unit::Count, "Document workers that convert."),
    ("caudal_picture_bytes", Unit::Bytes, "Memory of decoded pictures."),
    ("caudal_stage_blocked_seconds_total", Unit::Seconds, "Worker time spent waiting for room downstream."),
    ("caudal_stage_busy_seconds_total", Unit::Seconds, "Worker time spent working."),
    ("caudal_stage_in_flight_events", Unit::Count, "Events in the hands of a stage's workers."),
    ("caudal_stage_queue_limit_events", Unit::Count, "Events that may wait before a stage."),
    ("caudal_stage_queued_bytes", Unit::Bytes, "Memory of the events that wait before a stage."),
    ("caudal_stage_queued_events", Unit::Count, "Events that wait before a stage."),
    ("caudal_stage_waits_for_dependency", Unit::Count, "1 while what the stage depends on is out of reach."),
    ("caudal_stage_workers", Unit::Count, "Workers of a stage."),
    ("index_log_bytes", Unit::Bytes, "Log of a collection of the embedded index."),
    ("index_points", Unit::Count, "Points in a collection of the embedded index, roughly."),
];

/// Histograms, and what they measure.
const HISTOGRAMS: [(&str, Unit, &str); 9] = [
    ("caudal_event_duration_seconds", Unit::Seconds, "From delivery to settlement of an event."),
    ("caudal_office_load_seconds", Unit::Seconds, "The engine reading a document."),
    ("caudal_office_save_seconds", Unit::Seconds, "The engine writing a document."),
    ("caudal_office_worker_resident_bytes", Unit::Bytes, "Memory of a document worker after a document."),
    ("caudal_stage_batch_duration_seconds", Unit::Seconds, "One batch of a stage."),
    ("caudal_stage_batch_events", Unit::Count, "Events in a batch."),
    ("index_commit_seconds", Unit::Seconds, "One group of writes to the embedded index."),
    ("model_batch_images", Unit::Count, "Pictures of one inference."),
    ("model_embed_seconds", Unit::Seconds, "One inference."),
];

fn describe() {
    COUNTERS.iter().for_each(|(name, about)| describe_counter!(*name, *about));
    GAUGES.iter().for_each(|(name, unit, about)| describe_gauge!(*name, *unit, *about));
    HISTOGRAMS.iter().for_each(|(name, unit, about)| describe_histogram!(*name, *unit, *about));
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
