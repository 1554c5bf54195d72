//! CSRF and DNS-rebinding checks.
//!
//! A page of another site can make its reader's browser send a form, or a `fetch` without CORS, to any host, this
//! machine included; the page cannot read the answer, but the request is made (CSRF). And a page whose host name is
//! made to resolve to this machine (DNS rebinding) has our origin in the browser's eyes. Browsers say where a request
//! comes from, so both are refused here. Clients that are no browsers send no such headers and pass.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};

use crate::problem::Problem;
use crate::spec::is_loopback;
use crate::state::Shared;

/// Set by browsers: `same-origin`, `same-site`, `cross-site`, or `none` if the reader typed the address.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses requests that another site sends and, if the service relies on loopback for access control, foreign host
/// names.
///
/// # Errors
/// 403.
pub fn check(state: &Shared, parts: &Parts) -> Result<(), Problem> {
    let host = host_of(parts);
    if checks_host(state) && !host.is_empty() && !is_known_host(state, host) {
        let shown: String = host.chars().take(80).collect();
        let detail = format!(
            "the Host is {shown:?}: use localhost, an IP address or the host of a listed origin, or list http://{shown} \
             in [service] origins"
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, "unknown_host", detail));
    }
    if is_safe(&parts.method) || is_same_origin(state, host, &parts.headers) {
        return Ok(());
    }
    let detail = "a page of another site may not send this request: list its origin in [service] origins";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", detail))
}

/// Whether a request must name a host of ours: without authentication, on loopback, reaching the machine is the only
/// access control there is.
pub fn checks_host(state: &Shared) -> bool {
    !state.identity.is_on() && is_loopback(&state.service.listen)
}

/// Whether a method changes nothing.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether an origin is our own, or is listed. The scheme does not matter: a proxy may speak HTTPS for us.
pub fn is_allowed(state: &Shared, host: &str, origin: &str) -> bool {
    let ours = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    ours || state.service.origins.iter().any(|listed| listed.eq_ignore_ascii_case(origin))
}

fn is_same_origin(state: &Shared, host: &str, headers: &HeaderMap) -> bool {
    let site = headers.get(FETCH_SITE).map(|site| site.to_str().unwrap_or_default());
    // Holds even if a proxy changed the Host.
    if matches!(site, Some("same-origin" | "none")) {
        return true;
    }
    match headers.get(header::ORIGIN) {
        Some(origin) => is_allowed(state, host, origin.to_str().unwrap_or_default()),
        None => site != Some("cross-site"),
    }
}

/// The host that a request names, with its port; empty if it names none, which no browser does.
fn host_of(parts: &Parts) -> &str {
    let header = || parts.headers.get(header::HOST).map(|host| host.to_str().unwrap_or("\u{fffd}"));
    parts.uri.authority().map(Authority::as_str).or_else(header).unwrap_or_default()
}

fn is_known_host(state: &Shared, host: &str) -> bool {
    let Some(name) = name_of(host) else { return false };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let mut listed = state.service.origins.iter().filter_map(|origin| name_of(origin.split_once("://")?.1));
    address.is_ok() || name == "localhost" || listed.any(|listed| listed == name)
}

/// The name of a host, without its port.
fn name_of(host: &str) -> Option<String> {
    host.parse::<Authority>().ok().map(|authority| authority.host().to_ascii_lowercase())
}
