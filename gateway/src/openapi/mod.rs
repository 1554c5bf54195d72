//! `GET /openapi.json`: describes the service as configured, in OpenAPI 3.1.
//!
//! The description is exact: every listed status occurs, and every status that occurs is listed, or is one of the
//! problems that a flow's operators answer with, which are the route's `default`.

mod built_in;
mod parts;
mod routes;
mod schemas;
mod setting;

use std::collections::HashSet;

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
    let mut taken = HashSet::new();
    for operation in built_in::operations(setting, state.identity.opens_metrics()) {
        taken.insert(operation.id.to_owned());
        add(&mut paths, operation.path, operation.method, operation.describe(setting));
    }
    for route in state.routes.iter().chain(open) {
        let path = route.path.trim_end_matches('/');
        let method = route.method.as_str().to_ascii_lowercase();
        let mut operation = routes::describe(route, &state.routes, setting);
        operation["operationId"] = json!(operation_id(&method, path, &mut taken));
        add(&mut paths, path, &method, operation);
    }
    let mut document = json!({
        "openapi": OPENAPI,
        "info": { "title": state.service.name, "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": schemas::all(), "headers": parts::headers() },
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

/// A name for the operation of a route, from its method and path: `get_reports_by_report_id`. Two paths that differ only
/// in punctuation are numbered.
fn operation_id(method: &str, path: &str, taken: &mut HashSet<String>) -> String {
    let path = path.replace('{', "by_").replace('}', "");
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name = std::iter::once(method).chain(words).collect::<Vec<_>>().join("_");
    let numbered = (2..).map(|number: u32| format!("{name}_{number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(|name| taken.insert(name.clone())).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_ids_are_unique() {
        let mut taken = HashSet::from(["health".to_owned()]);
        let mut id = |method, path| operation_id(method, path, &mut taken);
        assert_eq!(id("get", "/reports/{report_id}"), "get_reports_by_report_id");
        assert_eq!(id("post", "/embeddings/search_image"), "post_embeddings_search_image");
        assert_eq!(id("post", "/embeddings/search-image"), "post_embeddings_search_image_2");
        assert_eq!(id("post", "/embeddings/search.image"), "post_embeddings_search_image_3");
    }
}
