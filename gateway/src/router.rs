//! Which handler answers which path.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::routing::{get, on, post};
use axum::{Extension, Router};
use pipeline::Lane;
use pipeline::spec::Places;
use tower_http::normalize_path::NormalizePath;

use crate::ask::{self, Route};
use crate::identity::caller::Caller;
use crate::limit::{ClientLimit, limited};
use crate::spec::{BodyKind, BodySpec, Method, QueryKind, QueryParam, RouteSpec};
use crate::state::{FlowEntry, GatewayState, Shared};
use crate::{console, dead, flows, guard, openapi, probes, record, requests, tail, tickets};

/// How long `POST /v1/flows/{flow}` waits for a result.
const OPEN_WAIT: Duration = Duration::from_secs(30);

/// The whole service as configured. The routes must have passed [`GatewaySpec::check`](crate::spec::GatewaySpec::check): two that collide
/// make this panic.
pub fn router(state: GatewayState) -> Router {
    let mut router = built_in();
    for spec in state.routes.iter().cloned().chain(open_routes(&state)) {
        router = with_route(router, &state, spec);
    }
    let router = router
        .fallback(guard::not_found)
        .method_not_allowed_fallback(guard::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::watch))
        .with_state(state);
    Router::new().fallback_service(NormalizePath::trim_trailing_slash(router))
}

fn built_in() -> Router<GatewayState> {
    Router::new()
        .merge(console::routes())
        .route("/health", get(probes::health))
        .route("/ready", get(probes::ready))
        .route("/metrics", get(probes::metrics))
        .route("/openapi.json", get(openapi::show))
        .route("/v1/flows", get(flows::list))
        .route("/v1/flows/{flow}", post(flows::closed))
        .route("/v1/tail/{flow}", get(tail::tail))
        .route("/v1/tail/{flow}/ticket", post(tail::ticket))
        .route("/v1/dead-letters", get(dead::list))
        .route("/v1/dead-letters/{id}", get(dead::show).delete(dead::drop))
        .route("/v1/dead-letters/{id}/retry", post(dead::retry))
        .route("/v1/requests/{id}", get(requests::show).delete(requests::cancel))
        .route("/v1/requests/{id}/events", get(requests::events))
        .route("/v1/requests/{id}/result", get(requests::result))
        .route("/v1/requests/{id}/ticket", post(tickets::of_request))
}

fn with_route(router: Router<GatewayState>, state: &GatewayState, spec: RouteSpec) -> Router<GatewayState> {
    let path = spec.path.trim_end_matches('/').to_owned();
    let (filter, limit) = (spec.method.filter(), limit_of(state, &spec));
    if let Some(record) = spec.record.clone().filter(|_| spec.reads_record()) {
        let handler = move |State(state): State<GatewayState>,
                            Extension(caller): Extension<Caller>,
                            params: Result<RawPathParams, RawPathParamsRejection>| {
            let record = record.clone();
            limited(limit.clone(), caller, move |caller| record::read(state, caller, record, params))
        };
        return router.route(&path, on(filter, handler));
    }
    let Some(flow) = spec.flow.clone() else { return router };
    let route = Arc::new(Route::new(spec, flow, limit));
    let handler =
        move |State(state): State<GatewayState>,
              Extension(caller): Extension<Caller>,
              params: Result<RawPathParams, RawPathParamsRejection>,
              request: Request| ask::handle(state, caller, Arc::clone(&route), params, request);
    router.route(&path, on(filter, handler))
}

/// The limit of a route: that of its class, which others share, or one of its own.
fn limit_of(state: &GatewayState, spec: &RouteSpec) -> Option<Arc<ClientLimit>> {
    if !state.limits.enabled {
        return None;
    }
    let own = || spec.limit.map(|rate| Arc::new(ClientLimit::new("route", rate)));
    spec.class.as_ref().and_then(|class| state.classes.of(class)).or_else(own)
}

/// The routes of all flows that are open.
pub fn open_routes(state: &Shared) -> Vec<RouteSpec> {
    state.flows.values().filter(|flow| flow.open).map(|flow| open_route(state, flow)).collect()
}

/// `POST /v1/flows/{flow}` of an open flow.
fn open_route(state: &Shared, flow: &FlowEntry) -> RouteSpec {
    let lanes = Lane::ALL.map(|lane| lane.as_str().to_owned()).to_vec();
    let lane = QueryKind::Text { default: None, max_length: 16, one_of: lanes };
    RouteSpec {
        path: format!("/v1/flows/{}", flow.name),
        method: Method::Post,
        flow: Some(flow.name.clone()),
        body: BodySpec {
            kind: BodyKind::Open { json: flow.takes_json },
            types: Vec::new(),
            max_bytes: state.limits.open_bytes,
            max_parts: 0,
        },
        query: vec![QueryParam { name: "lane".into(), kind: lane }],
        wait: OPEN_WAIT,
        lane: Lane::Interactive,
        status: 200,
        cancel_on_disconnect: false,
        webhook: false,
        limit: None,
        class: None,
        record: None,
        places: Places::default(),
    }
}
