//! `POST …/ticket`: issues a ticket for an event stream, because a browser cannot set headers when it opens one.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

use super::requests;
use crate::identity::caller::Caller;
use crate::identity::ticket;
use crate::intake::params::Segment;
use crate::problem::Problem;
use crate::state::GatewayState;

/// `POST /v1/requests/{id}/ticket`: for the events of a request.
pub async fn of_request(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    let id = requests::visible(&caller, &id)?;
    issue(&state, &caller, format!("/v1/requests/{id}/events")).await
}

/// 201 with the ticket and the URL that it opens.
pub async fn issue(state: &GatewayState, caller: &Caller, path: String) -> Result<Response, Problem> {
    let Some(principal) = &caller.principal else {
        // Authentication is off: the stream opens without a ticket.
        let body = json!({ "ticket": null, "url": path, "expires_in": null });
        return Ok((StatusCode::CREATED, Json(body)).into_response());
    };
    let ticket = ticket::issue(&*state.transport, principal, &path).await?;
    let url = format!("{path}?ticket={ticket}");
    let body = json!({ "ticket": ticket, "url": url, "expires_in": ticket::AGE.as_secs() });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}
