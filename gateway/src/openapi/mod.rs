//! `GET /openapi.json`: describes the service as configured, in OpenAPI 3.1.
//!
//! The description is exact: every listed status occurs, and every status that occurs is listed, or is one of the
//! problems that a flow's operators answer with, which are the route's `default`.

mod built_in;
mod parts;
mod routes;
mod setting;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::door::csrf;
use crate::spec::RouteSpec;
use crate::state::Shared;
use setting::Setting;

/// Version of the specification.
const OPENAPI: &str = "3.1.0";

/// The route of the document.
pub fn routes<S: Clone + Send + Sync + 'static>(document: &Value) -> Router<S> {
    let bytes = Bytes::from(document.to_string());
    let show = move || async move { ([(header::CONTENT_TYPE, "application/json")], bytes) };
    Router::new().route("/openapi.json", get(show))
}

/// The document of a service whose open flows have these routes.
pub fn document(state: &Shared, open: &[RouteSpec]) -> Value {
    let (identity, limits) = (state.identity.is_on(), state.limits.enabled);
    let setting = Setting { identity, limits, checks_host: csrf::checks_host(state) };
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
