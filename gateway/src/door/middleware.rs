//! The middleware around every route and fallback: checks the request, authenticates its caller, counts it, records its
//! span, and sets the security and CORS headers of the answer.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::authentication::authenticate;
use super::cors::{self, ReadableBy};
use super::csrf;
use super::metrics::RequestMetrics;
use super::rate_limit::RateLimits;
use super::trace::RequestSpan;
use crate::identity::caller::Caller;
use crate::problem::Problem;
use crate::state::GatewayState;

/// Longest path and query, in bytes.
const MAX_URI_BYTES: usize = 8 << 10;

/// Headers of an answer, unless its handler sets others.
const DEFAULTS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

/// What the middleware needs.
#[derive(Clone)]
pub struct MiddlewareState {
    pub state: GatewayState,
    pub limits: Arc<RateLimits>,
}

/// Wraps every route and fallback.
pub async fn apply(State(door): State<MiddlewareState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let metrics = RequestMetrics::begin(route, &parts.method);
    let span = RequestSpan::begin(&door.state, route, &mut parts);
    let readable_by = ReadableBy::of(&door.state, &parts.headers);
    let mut response = match admit(&door, route, &parts).await {
        Ok(Admitted::Caller(caller)) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Ok(Admitted::Preflight(response)) => response,
        Err(problem) => problem.into_response(),
    };
    metrics.answered(response.status());
    if let Some(span) = span {
        span.answered(&response);
    }
    let headers = response.headers_mut();
    readable_by.write(headers);
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// What follows the checks of a request.
enum Admitted {
    /// Its handler, with this caller.
    Caller(Caller),
    /// Nothing: it asks whether a page may send another, and this is the answer.
    Preflight(Response),
}

async fn admit(door: &MiddlewareState, route: &str, parts: &Parts) -> Result<Admitted, Problem> {
    let length = parts.uri.path_and_query().map_or(0, |text| text.as_str().len());
    if length > MAX_URI_BYTES {
        let detail = format!("the URI has {length} bytes: at most {MAX_URI_BYTES} are allowed");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail));
    }
    // HTTP/2 bounds only the sum of their sizes.
    let (count, most) = (parts.headers.len(), door.state.limits.headers);
    if count > most {
        let detail = format!("the request has {count} headers: at most {most} are allowed");
        return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers", detail));
    }
    csrf::check(&door.state, parts)?;
    if let Some(answer) = cors::preflight(&door.state, parts) {
        return answer.map(Admitted::Preflight);
    }
    authenticate(&door.state, &door.limits.failures, route, parts).await.map(Admitted::Caller)
}
