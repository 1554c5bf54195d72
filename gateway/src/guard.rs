//! What holds for every request and answer: sizes, counting, headers that keep browsers careful.
//!
//! A request that gives both `Content-Length` and `Transfer-Encoding` is read by the latter alone, and its connection
//! closed after the answer (RFC 9112, section 6.3); hyper sees to that.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::meter::RequestMeter;
use crate::problem::Problem;

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

/// Wraps every route and fallback.
pub async fn watch(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    let meter = RequestMeter::begin(route, request.method());
    let mut response = match refuse(&request) {
        Some(response) => response,
        None => next.run(request).await,
    };
    meter.answered(response.status());
    let headers = response.headers_mut();
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// The answer to a request that no handler should see.
fn refuse(request: &Request) -> Option<Response> {
    let length = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
    if length > MAX_URI_BYTES {
        let detail = format!("the URI has {length} bytes: at most {MAX_URI_BYTES} are taken");
        return Some(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail).into_response());
    }
    None
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
