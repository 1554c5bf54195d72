//! `/health`, `/ready` and `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use pipeline::engine::FlowStats;
use serde_json::json;

use super::readiness::Readiness;
use crate::problem::Problem;
use crate::state::GatewayState;

/// What the handlers need.
#[derive(Clone)]
struct ProbeState {
    state: GatewayState,
    readiness: Arc<Readiness>,
}

/// The routes of the probes.
pub fn routes<S: Clone + Send + Sync + 'static>(state: &GatewayState) -> Router<S> {
    let readiness = Arc::new(Readiness::new(state.checks.clone()));
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(ProbeState { state: state.clone(), readiness })
}

/// 200 while the process lives.
async fn health(State(ProbeState { state, .. }): State<ProbeState>) -> Json<serde_json::Value> {
    Json(json!({ "status": "ok", "service": state.service.name }))
}

/// What is degraded: flows that refuse events or do not drain, flows and stages that wait for storage or a dependency.
fn degraded(state: &GatewayState) -> Vec<String> {
    let mut degraded = state.drain_rates.troubles();
    degraded.extend(waits(&(state.flow_stats)()));
    degraded
}

/// What waits for storage or for a dependency.
fn waits(flows: &[FlowStats]) -> Vec<String> {
    let mut waits = Vec::new();
    for flow in flows {
        if flow.waits_for_storage > 0 {
            waits.push(format!("{} events of flow {} wait to be stored", flow.waits_for_storage, flow.name));
        }
        for stage in flow.stages.iter().filter(|stage| stage.waits) {
            waits.push(format!("stage {} of flow {} waits for a dependency", stage.name, flow.name));
        }
    }
    waits
}

/// 200 if every component is ready, with a list of what is degraded; else 503 naming the components that are not ready.
async fn ready(State(ProbeState { state, readiness }): State<ProbeState>) -> Response {
    if state.closing.is_cancelled() {
        return Problem::unavailable("shutting_down", "the service is shutting down").into_response();
    }
    let failing = readiness.failing().await;
    if failing.is_empty() {
        let degraded = degraded(&state);
        let status = if degraded.is_empty() { "ready" } else { "degraded" };
        return Json(json!({ "status": status, "degraded": degraded })).into_response();
    }
    Problem::unavailable("not_ready", format!("not ready: {}", failing.join(", "))).into_response()
}

/// Prometheus text.
async fn metrics(State(ProbeState { state, .. }): State<ProbeState>) -> Response {
    match (state.render_metrics)().await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics not rendered");
            Problem::internal().into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(waits_for_storage: usize) -> FlowStats {
        FlowStats {
            name: "f".into(),
            about: String::new(),
            open: false,
            delivered: 3,
            done: 0,
            failed: 0,
            retried: 0,
            refused: 0,
            repeated: 0,
            in_flight: 3,
            waits_for_storage,
            stages: Vec::new(),
        }
    }

    #[test]
    fn a_flow_whose_events_wait_to_be_stored_is_named() {
        assert!(waits(&[stats(0)]).is_empty());
        assert_eq!(waits(&[stats(3)]), ["3 events of flow f wait to be stored"]);
    }
}
