//! Which handler answers which path.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, on, post};
use axum::{Extension, Router};
use pipeline::Lane;
use pipeline::spec::Places;
use tower_http::normalize_path::NormalizePath;

use crate::door::middleware::MiddlewareState;
use crate::door::rate_limit::{ClientLimit, RateLimits, limited};
use crate::door::{fallbacks, middleware};
use crate::flow_entry::FlowEntry;
use crate::identity::caller::Caller;
use crate::intake::route::Route;
use crate::intake::route_handler;
use crate::pages::{dead_letters, flows, probes, records, requests, tail, tickets};
use crate::spec::{BodyKind, BodySpec, Method, QueryKind, QueryParam, RouteSpec};
use crate::state::{GatewayState, Shared};
use crate::{console, openapi};

/// How long `POST /v1/flows/{flow}` waits for a result.
const OPEN_WAIT: Duration = Duration::from_secs(30);

/// The whole service as configured. The routes must have passed
/// [`GatewaySpec::check`](crate::spec::GatewaySpec::check): two that collide make this panic.
pub fn router(state: GatewayState) -> Router {
    let limits = Arc::new(RateLimits::new(&state.limits));
    with_limits(state, limits)
}

/// The same, with rate limits that the caller sweeps.
pub fn with_limits(state: GatewayState, limits: Arc<RateLimits>) -> Router {
    let open = open_routes(&state);
    let document = openapi::document(&state, &open);
    let mut router = built_in(&state).merge(openapi::routes(&document));
    for spec in state.routes.iter().cloned().chain(open) {
        router = with_route(router, &state, &limits, spec);
    }
    let router = router
        .fallback(fallbacks::not_found)
        .method_not_allowed_fallback(fallbacks::method_not_allowed)
        .layer(from_fn_with_state(MiddlewareState { state: state.clone(), limits }, middleware::apply))
        .with_state(state);
    Router::new().fallback_service(NormalizePath::trim_trailing_slash(router))
}

fn built_in(state: &GatewayState) -> Router<GatewayState> {
    Router::new()
        .merge(console::routes())
        .merge(probes::routes(state))
        .merge(tail::routes(state))
        .route("/v1/flows", get(flows::list))
        .route("/v1/flows/{flow}", post(flows::closed))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/dead-letters/{id}", get(dead_letters::show).delete(dead_letters::drop))
        .route("/v1/dead-letters/{id}/retry", post(dead_letters::retry))
        .route("/v1/requests/{id}", get(requests::show).delete(requests::cancel))
        .route("/v1/requests/{id}/events", get(requests::events))
        .route("/v1/requests/{id}/result", get(requests::result))
        .route("/v1/requests/{id}/ticket", post(tickets::of_request))
}

fn with_route(
    router: Router<GatewayState>,
    state: &GatewayState,
    limits: &RateLimits,
    spec: RouteSpec,
) -> Router<GatewayState> {
    let path = spec.path.trim_end_matches('/').to_owned();
    let (filter, limit) = (spec.method.filter(), limit_of(state, limits, &spec));
    if let Some(record) = spec.record.clone().filter(|_| spec.reads_record()) {
        let handler = move |State(state): State<GatewayState>,
                            Extension(caller): Extension<Caller>,
                            params: Result<RawPathParams, RawPathParamsRejection>| {
            let record = record.clone();
            limited(limit.clone(), caller, move |caller| records::read(state, caller, record, params))
        };
        return router.route(&path, on(filter, handler));
    }
    let Some(flow) = spec.flow.clone() else { return router };
    let route = Arc::new(Route::new(spec, flow, limit));
    let handler =
        move |State(state): State<GatewayState>,
              Extension(caller): Extension<Caller>,
              params: Result<RawPathParams, RawPathParamsRejection>,
              request: Request| route_handler::handle(state, caller, Arc::clone(&route), params, request);
    router.route(&path, on(filter, handler))
}

/// The limit of a route: that of its class, which other routes share, or one of its own.
fn limit_of(state: &GatewayState, limits: &RateLimits, spec: &RouteSpec) -> Option<Arc<ClientLimit>> {
    if !state.limits.enabled {
        return None;
    }
    let own = || spec.limit.map(|rate| Arc::new(ClientLimit::new("route", rate)));
    spec.class.as_ref().and_then(|class| limits.of_class(class)).or_else(own)
}

/// The routes of all flows that are open.
fn open_routes(state: &Shared) -> Vec<RouteSpec> {
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
