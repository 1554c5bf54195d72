//! `GET /openapi.json`: the service as configured, as OpenAPI 3.1.
//!
//! Exact: every status that is listed occurs, and every status that occurs is listed, or is one of the problems that a
//! flow's operators answer with, which are the route's `default`.

mod built_in;
mod parts;
mod routes;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use crate::origin;
use crate::spec::RouteSpec;
use crate::state::{GatewayState, Shared};

/// Version of the specification.
const OPENAPI: &str = "3.1.0";

/// What an operation's answers depend on beside the operation itself.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Whether callers are asked who they are.
    identity: bool,
    /// Whether rates hold.
    limits: bool,
    /// Whether requests must name a host of ours.
    names: bool,
}

/// `GET /openapi.json`.
pub async fn show(State(state): State<GatewayState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], state.openapi.clone())
}

/// The document.
pub fn document(state: &Shared, open: &[RouteSpec]) -> Value {
    let (identity, limits) = (state.identity.is_on(), state.limits.enabled);
    let setting = Setting { identity, limits, names: origin::asks_name(state) };
    let mut paths = Map::new();
    for operation in built_in::operations(setting, state.identity.opens_metrics()) {
        add(&mut paths, operation.path, operation.method, operation.describe(setting));
    }
    for route in state.routes.iter().chain(open) {
        let path = route.path.trim_end_matches('/');
        add(&mut paths, path, &route.method.as_str().to_ascii_lowercase(), routes::describe(route, setting));
    }
    let mut document = json!({
        "openapi": OPENAPI,
        "info": { "title": state.service.name, "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": parts::schemas(), "headers": parts::headers() },
    });
    if setting.identity {
        document["components"]["securitySchemes"] = parts::security_schemes();
    }
    document
}

fn add(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    item[method] = operation;
}
