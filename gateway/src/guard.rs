//! What holds for every request and answer: who calls, from where, sizes, counting, headers that keep browsers careful.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::connection::Peer;
use crate::identity::caller::{Caller, Client};
use crate::identity::{Denied, Principal, credential_of, ticket};
use crate::meter::RequestMeter;
use crate::origin;
use crate::problem::Problem;
use crate::state::GatewayState;
use crate::trace::Traced;

/// Longest path and query, in bytes.
const MAX_URI_BYTES: usize = 8 << 10;

/// Set where a handler did not choose otherwise.
const DEFAULTS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

/// Streams that a ticket opens.
const TICKETED: [&str; 2] = ["/v1/requests/{id}/events", "/v1/tail/{flow}"];

/// Wraps every route and fallback.
pub async fn watch(State(state): State<GatewayState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let meter = RequestMeter::begin(route, &parts.method);
    let traced = Traced::begin(&state, route, &mut parts);
    let mut response = match admit(&state, route, &parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => problem.into_response(),
    };
    meter.answered(response.status());
    if let Some(traced) = traced {
        traced.answered(&response);
    }
    let headers = response.headers_mut();
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Who makes a request that a handler may see.
async fn admit(state: &GatewayState, route: &str, parts: &Parts) -> Result<Caller, Problem> {
    let length = parts.uri.path_and_query().map_or(0, |text| text.as_str().len());
    if length > MAX_URI_BYTES {
        let detail = format!("the URI has {length} bytes: at most {MAX_URI_BYTES} are taken");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail));
    }
    // HTTP/2 bounds only their size together.
    let (count, most) = (parts.headers.len(), state.limits.headers);
    if count > most {
        let detail = format!("the request has {count} headers: at most {most} are taken");
        return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers", detail));
    }
    origin::check(state, parts)?;
    let address = address_of(state, parts);
    if is_open(state, route) {
        return Ok(Caller { principal: None, address });
    }
    let principal = identify(state, route, parts).await.map_err(|problem| failed(state, address, problem))?;
    Ok(Caller { principal: Some(principal), address })
}

/// Where the client is: the peer, or where a proxy that is trusted says.
fn address_of(state: &GatewayState, parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
    let lines = |name: &str| parts.headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or_default());
    state.service.trusted_proxies.client(peer, lines("x-forwarded-for"), lines("forwarded"))
}

/// Counts a check that failed, so that nobody tries keys for long. Whoever has a good one is not kept out by others who
/// share the address.
fn failed(state: &GatewayState, address: IpAddr, problem: Problem) -> Problem {
    if problem.status() != StatusCode::UNAUTHORIZED || !state.limits.enabled {
        return problem;
    }
    let (_, admitted) = state.failures.admit(Client::of_address(address));
    admitted.err().unwrap_or(problem)
}

/// Whether a route asks nobody who they are. The console's files are the same for everybody and hold no data.
fn is_open(state: &GatewayState, route: &str) -> bool {
    match route {
        _ if !state.identity.is_on() => true,
        "/health" | "/ready" | "/" => true,
        "/metrics" => state.identity.opens_metrics(),
        _ => route.starts_with("/console/"),
    }
}

async fn identify(state: &GatewayState, route: &str, parts: &Parts) -> Result<Arc<Principal>, Problem> {
    if let Some(credential) = credential_of(&parts.headers) {
        return Ok(state.identity.check(credential).await?);
    }
    if TICKETED.contains(&route)
        && parts.method == Method::GET
        && let Some(given) = ticket_of(parts)
    {
        let path = parts.uri.path().trim_end_matches('/');
        let holder = ticket::redeem(&*state.transport, &given, path).await?;
        return holder.ok_or_else(|| Denied::Invalid.into());
    }
    Err(Denied::Invalid.into())
}

fn ticket_of(parts: &Parts) -> Option<String> {
    #[derive(Deserialize)]
    struct Ticketed {
        ticket: String,
    }
    Query::<Ticketed>::try_from_uri(&parts.uri).ok().map(|Query(query)| query.ticket)
}

/// The answer to a path that nothing serves.
pub async fn not_found(request: Request) -> Problem {
    let shown: String = request.uri().path().chars().take(200).collect();
    Problem::new(StatusCode::NOT_FOUND, "no_route", format!("nothing is served at {shown}"))
}

/// The answer to a method that the path does not take; the router adds `Allow`.
pub async fn method_not_allowed(request: Request) -> Problem {
    let shown: String = request.uri().path().chars().take(200).collect();
    let detail = format!("{} is not taken at {shown}; the header Allow names what is", request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
