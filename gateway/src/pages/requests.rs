//! `/v1/requests/{id}`: a request's status, its results as events or as a file, and its cancellation.

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use pipeline::{Content, FlowName, OutcomeKind, RequestId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::answer::cancel::{Cancellation, publish_cancelled};
use crate::answer::follower::Follower;
use crate::answer::result::{problem_of, terminal};
use crate::answer::sse::{self, StreamLifetime};
use crate::answer::status::{decisive, status_of};
use crate::answer::stream_slot;
use crate::identity::caller::Caller;
use crate::intake::params::{Segment, token};
use crate::problem::Problem;
use crate::state::GatewayState;

fn unknown(id: &RequestId) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_request",
        format!("no request has the id {id}: it was never accepted, or its results have expired"),
    )
}

/// The id of a request that the caller may see. To a caller who may not, it is as if it did not exist.
pub fn visible(caller: &Caller, id: &str) -> Result<RequestId, Problem> {
    let id = token("id", id)?;
    if caller.may_see(&id) { Ok(id) } else { Err(unknown(&id)) }
}

#[derive(Serialize)]
struct RequestStatus<'a> {
    id: &'a RequestId,
    flow: &'a FlowName,
    status: &'static str,
    created: String,
    updated: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

/// `GET /v1/requests/{id}`. A JSON result is in the answer; any other is linked, with its type and length.
pub async fn show(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    let id = visible(&caller, &id)?;
    let outcomes = state.transport.outcomes(&id).await?;
    let (Some(first), Some(last)) = (outcomes.first(), decisive(&outcomes)) else { return Err(unknown(&id)) };
    let link = RawValue::from_string(format!("\"/v1/requests/{id}/result\"")).map_err(|_| Problem::internal())?;
    let done = last.kind == OutcomeKind::Done;
    let inline = done.then(|| inline_json(&last.content)).flatten();
    let linked = done && inline.is_none();
    let failed = last.kind.is_terminal() && !done;
    let body = RequestStatus {
        id: &id,
        flow: &first.flow,
        status: status_of(last.kind),
        created: rfc3339(first.time),
        updated: rfc3339(last.time),
        result: inline.or(linked.then_some(&*link)),
        result_type: linked.then_some(&*last.content.media_type),
        result_length: linked.then(|| last.content.length()),
        error: failed.then(|| problem_of(last).with_request(&id).to_json()),
    };
    Ok(axum::Json(body).into_response())
}

fn inline_json(content: &Content) -> Option<&RawValue> {
    let pipeline::Body::Inline(bytes) = &content.body else { return None };
    let essence = content.media_type.split(';').next().unwrap_or_default().trim();
    if essence != "application/json" && !essence.ends_with("+json") {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// `GET /v1/requests/{id}/result`: the result itself, with its media type.
pub async fn result(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    let id = visible(&caller, &id)?;
    let outcomes = state.transport.outcomes(&id).await?;
    let last = decisive(&outcomes).ok_or_else(|| unknown(&id))?;
    if !last.kind.is_terminal() {
        let detail = format!("request {id} is {}: it has no result yet", status_of(last.kind));
        return Err(Problem::new(StatusCode::CONFLICT, "not_ended", detail).with_request(&id));
    }
    terminal(&state, last, StatusCode::OK).await.map_err(|problem| problem.with_request(&id))
}

/// `GET /v1/requests/{id}/events`, from the first result or after [`last_event_id`]. 204 if nothing can follow, which
/// makes an `EventSource` stop reconnecting.
pub async fn events(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = visible(&caller, &id)?;
    let after = last_event_id(&uri, &headers)?;
    let slot = stream_slot::acquire(&state, &caller)?;
    let follower = Follower::resume(&state, &id, after).await?.ok_or_else(|| unknown(&id))?;
    if follower.ended() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(sse::stream(&state, follower, slot, StreamLifetime::of(&caller)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResumeQuery {
    last_event_id: Option<String>,
}

/// The last event that the client has: of the header, else of `lastEventId` in the query, which clients send that
/// cannot set headers. The header is the newer of the two: a browser that reconnects keeps the URL and adds the header.
fn last_event_id(uri: &Uri, headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let wrong = |name: &str| {
        let detail = format!("{name} must be the id of an event of this request, once: a whole number");
        Problem::malformed("bad_last_event_id", detail)
    };
    let header = headers.get("last-event-id").map(|given| given.to_str().unwrap_or("?").trim());
    if let Some(text) = header.filter(|text| !text.is_empty()) {
        return text.parse().map(Some).map_err(|_| wrong("Last-Event-ID"));
    }
    let query = Query::<ResumeQuery>::try_from_uri(uri).map_err(|_| wrong("lastEventId"))?;
    match query.0.last_event_id.filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map(Some).map_err(|_| wrong("lastEventId")),
        None => Ok(None),
    }
}

/// `DELETE /v1/requests/{id}`: cancels the request.
pub async fn cancel(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    let id = visible(&caller, &id)?;
    let outcomes = state.transport.outcomes(&id).await?;
    let first = outcomes.first().ok_or_else(|| unknown(&id))?;
    match publish_cancelled(&*state.transport, &first.flow, &id).await? {
        Cancellation::Stored => {
            let body = json!({ "id": id, "flow": first.flow, "status": OutcomeKind::Cancelled.as_str() });
            Ok(([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response())
        }
        Cancellation::AlreadyEnded(kind) => {
            let detail = format!("request {id} has already ended: it is {}", status_of(kind));
            Err(Problem::new(StatusCode::CONFLICT, "already_ended", detail).with_request(&id))
        }
    }
}
