//! `POST …/ticket`: a ticket for an event stream, for a browser that can set no header there.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

use crate::identity::caller::Caller;
use crate::identity::ticket;
use crate::params::Segment;
use crate::problem::Problem;
use crate::requests;
use crate::state::GatewayState;

/// `POST /v1/requests/{id}/ticket`: for the events of a request.
pub async fn of_request(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    let id = requests::theirs(&caller, &id)?;
    issue(&state, &caller, format!("/v1/requests/{id}/events")).await
}

/// 201 with the ticket, and the address it opens.
pub async fn issue(state: &GatewayState, caller: &Caller, path: String) -> Result<Response, Problem> {
    let Some(principal) = &caller.principal else {
        // Nobody is asked, so the stream opens as it is.
        let body = json!({ "ticket": null, "url": path, "expires_in": null });
        return Ok((StatusCode::CREATED, Json(body)).into_response());
    };
    let ticket = ticket::issue(&*state.transport, principal, &path).await?;
    let url = format!("{path}?ticket={ticket}");
    let body = json!({ "ticket": ticket, "url": url, "expires_in": ticket::AGE.as_secs() });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}
