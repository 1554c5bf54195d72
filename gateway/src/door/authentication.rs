//! Authenticates requests: by API key or token in the headers, or by a ticket in the query where a browser opens a
//! stream.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::Query;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use serde::Deserialize;

use super::rate_limit::ClientLimit;
use crate::identity::caller::{Caller, Client};
use crate::identity::{Denied, Principal, credential_of, ticket};
use crate::problem::Problem;
use crate::state::GatewayState;
use crate::wire::connection::Peer;

/// Routes of streams that a ticket opens.
const TICKET_ROUTES: [&str; 2] = ["/v1/requests/{id}/events", "/v1/tail/{flow}"];

/// The caller of a request. Failed checks are counted in `failures`, by address.
///
/// # Errors
/// 401 without a valid credential, 429 after too many failures, 503 if the credential cannot be checked.
pub async fn authenticate(
    state: &GatewayState,
    failures: &ClientLimit,
    route: &str,
    parts: &Parts,
) -> Result<Caller, Problem> {
    let address = client_address(state, parts);
    if is_public(state, route) {
        return Ok(Caller { principal: None, address });
    }
    match identify(state, route, parts).await {
        Ok(principal) => Ok(Caller { principal: Some(principal), address }),
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED && state.limits.enabled => {
            Err(count_failure(failures, address, problem))
        }
        Err(problem) => Err(problem),
    }
}

/// The client's address: the peer's, or the one that a trusted proxy forwards.
fn client_address(state: &GatewayState, parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
    let lines = |name: &str| parts.headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or_default());
    state.service.trusted_proxies.client(peer, lines("x-forwarded-for"), lines("forwarded"))
}

/// Counts a failed check, so that a client cannot guess keys for long. Only failures count: a valid credential works
/// even while others at the same address fail.
fn count_failure(failures: &ClientLimit, address: IpAddr, problem: Problem) -> Problem {
    let (_, admitted) = failures.admit(Client::of_address(address));
    admitted.err().unwrap_or(problem)
}

/// Whether a route needs no credential. The console's files are the same for everybody and hold no data.
fn is_public(state: &GatewayState, route: &str) -> bool {
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
    if TICKET_ROUTES.contains(&route)
        && parts.method == Method::GET
        && let Some(given) = ticket_of(parts)
    {
        let path = parts.uri.path().trim_end_matches('/');
        let principal = ticket::redeem(&*state.transport, &given, path).await?;
        return principal.ok_or_else(|| Denied::Invalid.into());
    }
    Err(Denied::Invalid.into())
}

fn ticket_of(parts: &Parts) -> Option<String> {
    #[derive(Deserialize)]
    struct TicketQuery {
        ticket: String,
    }
    Query::<TicketQuery>::try_from_uri(&parts.uri).ok().map(|Query(query)| query.ticket)
}
