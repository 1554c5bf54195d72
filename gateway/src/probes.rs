//! `/health`, `/ready` and `/metrics`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::problem::Problem;
use crate::state::{Check, GatewayState};

/// How long the outcome of the checks is taken for current.
const READY_AGE: Duration = Duration::from_secs(1);

/// Longest time of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// The named checks and their last outcome.
pub struct Readiness {
    checks: Vec<(String, Check)>,
    /// Locked while the checks run, so that they run once however many ask.
    last: Mutex<Option<(Instant, Vec<String>)>>,
}

impl Readiness {
    pub fn new(checks: Vec<(String, Check)>) -> Self {
        Self { checks, last: Mutex::new(None) }
    }

    /// Names of the parts that are not usable.
    async fn failing(&self) -> Vec<String> {
        let mut last = self.last.lock().await;
        if let Some((at, failing)) = &*last
            && at.elapsed() < READY_AGE
        {
            return failing.clone();
        }
        let outcomes = join_all(self.checks.iter().map(|(name, check)| async move {
            let why = match tokio::time::timeout(CHECK_TIMEOUT, check()).await {
                Ok(Ok(())) => return None,
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {CHECK_TIMEOUT:?}"),
            };
            tracing::warn!(part = %name, %why, "not ready");
            Some(name.clone())
        }));

        let failing: Vec<String> = outcomes.await.into_iter().flatten().collect();
        for (name, _) in &self.checks {
            let usable = f64::from(u8::from(!failing.contains(name)));
            metrics::gauge!("caudal_part_usable", "part" => name.clone()).set(usable);
        }
        *last = Some((Instant::now(), failing.clone()));
        failing
    }
}

/// 200 while the process lives.
pub async fn health(State(state): State<GatewayState>) -> Json<serde_json::Value> {
    Json(json!({ "status": "ok", "service": state.service.name }))
}

/// What is usable but not well: flows that refuse or stand still, stages that wait for what they depend on.
fn degraded(state: &GatewayState) -> Vec<String> {
    let mut degraded = state.pace.troubles();
    for flow in (state.figures)() {
        for stage in flow.stages.iter().filter(|stage| stage.waits) {
            degraded.push(format!("stage {} of flow {} waits for what it depends on", stage.name, flow.name));
        }
    }
    degraded
}

/// 200 when every part is usable, with what is not well all the same; else 503 naming the parts that are not.
pub async fn ready(State(state): State<GatewayState>) -> Response {
    if state.closing.is_cancelled() {
        return Problem::unavailable("shutting_down", "the service is shutting down").into_response();
    }
    let failing = state.readiness.failing().await;
    if failing.is_empty() {
        let degraded = degraded(&state);
        let status = if degraded.is_empty() { "ready" } else { "degraded" };
        return Json(json!({ "status": status, "degraded": degraded })).into_response();
    }
    Problem::unavailable("not_ready", format!("not usable: {}", failing.join(", "))).into_response()
}

/// Prometheus text.
pub async fn metrics(State(state): State<GatewayState>) -> Response {
    // The exporter walks every series under its locks: not on the runtime.
    let render = state.render_metrics.clone();
    match tokio::task::spawn_blocking(move || render()).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics not rendered");
            Problem::internal().into_response()
        }
    }
}
