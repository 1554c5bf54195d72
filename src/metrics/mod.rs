//! `/metrics`: collects what the crates count, adds the live state of engine, broker and process, and renders it all.

mod broker;
mod descriptions;

use std::sync::Arc;

use futures_util::FutureExt;
use gateway::RenderMetrics;
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use pipeline::Services;
use pipeline::engine::{Engine, FlowStats};

pub use broker::BrokerMetrics;

/// Upper bounds of every `_seconds` histogram: from a cheap stage to a slow document.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of every histogram that counts events or images.
const EVENTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Installs the recorder. Call it once per process.
///
/// # Errors
/// If a recorder is installed already.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_events".into()), &EVENTS)?
        .set_buckets_for_metric(Matcher::Suffix("_images".into()), &EVENTS)?
        .install_recorder()?;
    descriptions::register();
    gateway::describe_metrics();
    Collector::default().describe();
    gauge!("caudal_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Makes the function that answers `/metrics`.
pub fn renderer(
    handle: PrometheusHandle,
    engine: Engine,
    services: Arc<Services>,
    broker: BrokerMetrics,
) -> RenderMetrics {
    let broker = Arc::new(broker);
    Arc::new(move || {
        let (handle, engine, services, broker) =
            (handle.clone(), engine.clone(), Arc::clone(&services), Arc::clone(&broker));
        async move {
            broker.update().await;
            // Reads /proc and formats hundreds of lines: too long for the runtime.
            Ok(tokio::task::spawn_blocking(move || render(&handle, &engine, &services)).await?)
        }
        .boxed()
    })
}

fn render(handle: &PrometheusHandle, engine: &Engine, services: &Services) -> String {
    engine.stats().iter().for_each(publish);
    publish_shared(services);
    Collector::default().collect();
    handle.run_upkeep();
    with_fractional_counters(&handle.render())
}

/// The recorder's counters hold whole numbers, so fractional seconds are recorded as gauges. Their names end in
/// `_seconds_total`; this declares them as the counters they are.
fn with_fractional_counters(text: &str) -> String {
    let mut typed = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let name = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" gauge\n"));
        match name.filter(|name| name.ends_with("_seconds_total")) {
            Some(name) => typed.extend(["# TYPE ", name, " counter\n"]),
            None => typed.push_str(line),
        }
    }
    typed
}

fn publish(flow: &FlowStats) {
    let ends = [("done", flow.done), ("failed", flow.failed), ("retried", flow.retried), ("repeated", flow.repeated)];
    for (result, count) in ends {
        counter!("caudal_flow_events_total", "flow" => flow.name.clone(), "result" => result).absolute(count);
    }
    counter!("caudal_flow_results_refused_total", "flow" => flow.name.clone()).absolute(flow.refused);
    gauge!("caudal_flow_in_flight_events", "flow" => flow.name.clone()).set(flow.in_flight as f64);
    gauge!("caudal_flow_waits_for_storage_events", "flow" => flow.name.clone()).set(flow.waits_for_storage as f64);
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

/// Metrics that all flows of the process share.
fn publish_shared(services: &Services) {
    let (known, forgotten_early) = services.process.ledger.stats();
    gauge!("caudal_ledger_events").set(known as f64);
    counter!("caudal_ledger_forgotten_early_total").absolute(forgotten_early);
    gauge!("caudal_decoded_image_bytes").set(services.process.pixels.taken() as f64);
}

/// A counter of seconds with fractions; see [`with_fractional_counters`].
fn seconds(name: &'static str, labels: &[(&'static str, String); 2], value: f64) {
    gauge!(name, labels).set(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_seconds_are_declared_as_counters() {
        let text =
            "# HELP a_seconds_total A.\n# TYPE a_seconds_total gauge\na_seconds_total 1.5\n# TYPE b gauge\nb 1\n";
        let expected = text.replace("a_seconds_total gauge", "a_seconds_total counter");
        assert_eq!(with_fractional_counters(text), expected);
    }
}
