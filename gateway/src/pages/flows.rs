//! `GET /v1/flows`: the flows with their live metrics and the routes, for the console and for people.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::flow_entry::FlowEntry;
use crate::intake::params::Segment;
use crate::problem::Problem;
use crate::spec::RouteSpec;
use crate::state::GatewayState;

/// Every declared flow with its backlog and, if it runs in this process, its metrics; every route.
pub async fn list(State(state): State<GatewayState>) -> Json<Value> {
    let stats = (state.flow_stats)();
    let mut entries: Vec<&FlowEntry> = state.flows.values().collect();
    // Flows that run here, in the engine's order, then the others by name.
    let place = |flow: &FlowEntry| stats.iter().position(|stats| stats.name == flow.name.as_str());
    entries.sort_by_key(|flow| (place(flow).unwrap_or(usize::MAX), flow.name.clone()));
    let flows = join_all(entries.into_iter().map(|flow| {
        let stats = stats.iter().find(|stats| stats.name == flow.name.as_str());
        let members = stats.and_then(|stats| serde_json::to_value(stats).ok());
        describe(&state, flow, members)
    }));
    let flows: Vec<Value> = flows.await;
    let routes: Vec<Value> = state.routes.iter().map(describe_route).collect();
    Json(json!({ "service": state.service.name, "flows": flows, "routes": routes }))
}

async fn describe(state: &GatewayState, flow: &FlowEntry, members: Option<Value>) -> Value {
    let elsewhere = || json!({ "name": flow.name, "about": flow.about, "open": flow.open, "stages": [] });
    let mut members = members.unwrap_or_else(elsewhere);
    let backlog = state.drain_rates.backlog(&flow.name).await;
    members["backlog"] =
        json!(backlog.map(|backlog| json!({ "interactive": backlog.interactive, "bulk": backlog.bulk })));
    members["backlog_limit"] = json!(flow.backlog);
    members
}

fn describe_route(route: &RouteSpec) -> Value {
    json!({ "path": route.path, "method": route.method.as_str(), "flow": route.flow })
}

/// `POST /v1/flows/{flow}` of a flow that is not open; open flows have routes of their own.
pub async fn closed(State(state): State<GatewayState>, Segment(flow): Segment) -> Problem {
    let shown: String = flow.chars().take(64).collect();
    if state.flows.contains_key(flow.as_str()) {
        let detail = format!("flow {shown} is not open: use one of its routes, or set open = true in its section");
        return Problem::new(StatusCode::NOT_FOUND, "flow_not_open", detail);
    }
    Problem::new(StatusCode::NOT_FOUND, "no_flow", format!("no flow is named {shown:?}"))
}
