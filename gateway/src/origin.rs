//! Requests that a page of another site has its reader's browser send (row G20).
//!
//! A browser sends a form, or a `fetch` without CORS, to wherever a page says, this machine included; the page cannot read
//! the answer, but the request is made. And a page whose own name is made to lead to this machine (DNS rebinding) is of our
//! origin for its browser. Browsers say where a request comes from, so both are refused here; what is no browser says
//! nothing of the kind, and is asked nothing.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};

use crate::problem::Problem;
use crate::spec::is_loopback;
use crate::state::Shared;

/// What browsers say of who asks: `same-origin`, `same-site`, `cross-site`, or `none` for the reader themselves.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what another site sends, and where nobody is asked who they are, names that are not ours.
///
/// # Errors
/// 403.
pub fn check(state: &Shared, parts: &Parts) -> Result<(), Problem> {
    let host = host_of(parts);
    if asks_name(state) && !host.is_empty() && !is_named(state, host) {
        let shown: String = host.chars().take(80).collect();
        let detail = format!(
            "the Host is {shown:?}: localhost, an IP address or the host of an origin is needed; list http://{shown} in \
             [service] origins"
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, "unknown_host", detail));
    }
    if is_safe(&parts.method) || comes_from_us(state, host, &parts.headers) {
        return Ok(());
    }
    let detail = "a page of another site may not send this: list its origin in [service] origins";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", detail))
}

/// Whether a request must name a host of ours: whoever else reaches this machine alone is let in for that.
pub fn asks_name(state: &Shared) -> bool {
    !state.identity.is_on() && is_loopback(&state.service.listen)
}

/// Whether a method changes nothing.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether an origin is the one asked, or is listed. The scheme does not matter: a proxy may speak HTTPS for us.
pub fn is_known(state: &Shared, host: &str, origin: &str) -> bool {
    let ours = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    ours || state.service.origins.iter().any(|listed| listed.eq_ignore_ascii_case(origin))
}

fn comes_from_us(state: &Shared, host: &str, headers: &HeaderMap) -> bool {
    let site = headers.get(SITE).map(|site| site.to_str().unwrap_or_default());
    // Says it even where a proxy gave the request another Host.
    if matches!(site, Some("same-origin" | "none")) {
        return true;
    }
    match headers.get(header::ORIGIN) {
        Some(origin) => is_known(state, host, origin.to_str().unwrap_or_default()),
        None => site != Some("cross-site"),
    }
}

/// Whom a request names, its port included; empty where it names nobody, as no browser does.
fn host_of(parts: &Parts) -> &str {
    let header = || parts.headers.get(header::HOST).map(|host| host.to_str().unwrap_or("\u{fffd}"));
    parts.uri.authority().map(Authority::as_str).or_else(header).unwrap_or_default()
}

fn is_named(state: &Shared, host: &str) -> bool {
    let Some(name) = name_of(host) else { return false };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let mut listed = state.service.origins.iter().filter_map(|origin| name_of(origin.split_once("://")?.1));
    address.is_ok() || name == "localhost" || listed.any(|listed| listed == name)
}

/// The name of a host, without its port.
fn name_of(host: &str) -> Option<String> {
    host.parse::<Authority>().ok().map(|authority| authority.host().to_ascii_lowercase())
}
