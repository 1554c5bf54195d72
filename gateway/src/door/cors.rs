//! Cross-origin requests (CORS): pages of the origins in `[service] origins` may read the answers to what they send.
//!
//! Whether a request of another origin is taken at all decides `csrf.rs`. Credentials are headers that the page sets
//! itself, never cookies, so `Access-Control-Allow-Credentials` is not sent. A listed page is trusted as our own is:
//! it may send any header, and a preflight, which can carry no credential, is answered without one.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;
use crate::state::Shared;

/// Lets a page read the times of `Server-Timing` (Resource Timing, section 4.5.1).
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// The methods that routes can have.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE";

/// The headers of our answers that a page could not read otherwise. A test compares them with those of real answers.
const EXPOSED: &str = "Allow, Caudal-Ignored-Parts, Caudal-Request, Content-Disposition, ETag, Gotenberg-Trace, \
                       Idempotent-Replayed, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, \
                       Server-Timing, traceparent, WWW-Authenticate";

/// Seconds for which a browser may remember a preflight.
const MAX_AGE: &str = "600";

/// The origin of a request, if it is listed. Browsers write scheme and host in lower case.
fn listed_origin<'a>(state: &Shared, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?;
    state.service.origins.iter().any(|listed| listed.eq_ignore_ascii_case(text)).then_some(origin)
}

/// The answer to a preflight; `None` if the request is none.
///
/// # Errors
/// 403 if the origin is not listed.
pub fn preflight(state: &Shared, parts: &Parts) -> Option<Result<Response, Problem>> {
    let is_preflight = parts.method == Method::OPTIONS
        && parts.headers.contains_key(header::ORIGIN)
        && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !is_preflight {
        return None;
    }
    if listed_origin(state, &parts.headers).is_none() {
        let detail = "a page of this origin may not send requests: list the origin in [service] origins";
        return Some(Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail)));
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    if let Some(asked) = parts.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    Some(Ok(response))
}

/// Lets the page that sent a request read its answer, if its origin is listed.
pub struct ReadableBy {
    /// Whether answers differ by origin.
    varies: bool,
    origin: Option<HeaderValue>,
}

impl ReadableBy {
    pub fn of(state: &Shared, request: &HeaderMap) -> Self {
        Self { varies: !state.service.origins.is_empty(), origin: listed_origin(state, request).cloned() }
    }

    /// Writes the headers of the answer.
    pub fn write(self, answer: &mut HeaderMap) {
        if self.varies {
            // Also without an origin: a cache must not give this answer to a page that names one.
            answer.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = self.origin else { return };
        answer.insert(TIMING_ALLOW_ORIGIN, origin.clone());
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}
