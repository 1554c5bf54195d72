//! `/v1/dead-letters`: events that failed, to be inspected, retried or deleted.
//!
//! A retry is a new request. Its id is derived from the letter's id, so that two people who retry the same letter start
//! it once. It has no deadline, because the original one passed long ago. If authentication is on, only administrators
//! see dead letters, because they belong to all tenants.

use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use pipeline::{
    Body, Content, DeadLetter, Payload, RequestId, StoredDeadLetter, Submission, SubmitAck, TransportError, claims,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::status::QUEUED;
use crate::identity::caller::Caller;
use crate::identity::tenant;
use crate::intake::body::store::discard;
use crate::intake::params::{Segment, token};
use crate::intake::{acceptance, admission};
use crate::problem::Problem;
use crate::redaction;
use crate::state::GatewayState;

/// Letters in one answer, at most and by default.
const MAX_LETTERS: usize = 100;

/// The part of a retried event's id besides the letter's id.
const RETRY: &str = "retry";

/// `?flow=NAME&from=ID&limit=N`.
#[derive(Deserialize)]
pub struct Selection {
    flow: Option<String>,
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

/// `GET /v1/dead-letters`: oldest first; `next` is the `from` of the following page.
pub async fn list(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    selection: Result<Query<Selection>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, Problem> {
    caller.expect_admin()?;
    let Query(selection) = selection.map_err(|_| {
        Problem::malformed("bad_parameter", "the query must be flow=NAME, from=NUMBER, limit=NUMBER, all optional")
    })?;
    let flow = selection.flow.as_deref().map(|name| token("flow", name)).transpose()?;
    let limit = selection.limit.unwrap_or(MAX_LETTERS).clamp(1, MAX_LETTERS);
    let letters = state.transport.dead_letters(flow.as_ref(), selection.from, limit).await?;
    let next = letters.last().filter(|_| letters.len() == limit).map(|last| last.id + 1);
    let letters: Vec<Value> = letters.iter().map(describe).collect();
    Ok(Json(json!({ "dead_letters": letters, "next": next })))
}

/// `GET /v1/dead-letters/{id}`: with parameters, and with the payload if it is JSON or inline text.
pub async fn show(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Json<Value>, Problem> {
    caller.expect_admin()?;
    let found = find(&state, &id).await?;
    let mut shown = describe(&found);
    shown["params"] = redaction::params(&found.letter.envelope.params);
    shown["payload"] = payload(&found.letter.payload);
    Ok(Json(shown))
}

/// `POST /v1/dead-letters/{id}/retry`: 202 with the new request.
pub async fn retry(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    caller.expect_admin()?;
    let found = find(&state, &id).await?;
    let flow = found.letter.envelope.flow.clone();
    let request = resubmit(&state, &found).await?;
    // After the new event is stored: a crash in between leaves a letter too many, not one too few.
    state.transport.remove_dead_letter(found.id).await?;
    discard(&*state.transport, found.letter.payload.claims()).await;
    let body = json!({ "id": request, "flow": flow, "status": QUEUED });
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    let location = format!("/v1/requests/{request}");
    let location = HeaderValue::from_str(&location).expect("a token is header text");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `DELETE /v1/dead-letters/{id}`: deletes the letter and its bodies in the object store.
pub async fn drop(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<StatusCode, Problem> {
    caller.expect_admin()?;
    let found = find(&state, &id).await?;
    state.transport.remove_dead_letter(found.id).await?;
    discard(&*state.transport, found.letter.payload.claims()).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn resubmit(state: &GatewayState, found: &StoredDeadLetter) -> Result<RequestId, Problem> {
    let DeadLetter { mut envelope, payload, .. } = found.letter.clone();
    envelope.id = envelope.id.child(RETRY, u32::try_from(found.id).unwrap_or(u32::MAX));
    if let Some(tenant) = envelope.tenant() {
        envelope.id = tenant::tagged(&envelope.id, tenant);
    }
    envelope.request = Some(envelope.id.clone());
    envelope.deadline = None;
    let (request, flow, lane) = (envelope.id.clone(), envelope.flow.clone(), envelope.lane);
    // The event gets its own copies of the bodies: those of the letter are deleted with it.
    let payload = claims::storable(&*state.transport, &flow, &payload).await?;
    let copies = payload.claims();
    match state.transport.submit(Submission { envelope, payload }).await {
        Ok(SubmitAck::Stored) => {}
        Ok(SubmitAck::Duplicate) => discard(&*state.transport, copies).await,
        // The event may be stored: it needs its bodies.
        Err(error @ TransportError::Unavailable(_)) => return Err(admission::refusal(state, error, lane)),
        Err(error) => {
            discard(&*state.transport, copies).await;
            return Err(admission::refusal(state, error, lane));
        }
    }
    acceptance::record(&*state.transport, &request, &flow).await?;
    Ok(request)
}

async fn find(state: &GatewayState, id: &str) -> Result<StoredDeadLetter, Problem> {
    let shown: String = id.chars().take(32).collect();
    let id: u64 = id.parse().map_err(|_| {
        Problem::malformed("bad_parameter", format!("the id of a dead letter is a number, {shown:?} is not"))
    })?;
    let found = state.transport.dead_letters(None, id, 1).await?;
    found
        .into_iter()
        .find(|stored| stored.id == id)
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no_dead_letter", format!("no dead letter has the id {id}")))
}

fn describe(found: &StoredDeadLetter) -> Value {
    let DeadLetter { envelope, payload, stage, faults, cause, error } = &found.letter;
    let length: u64 = match payload {
        Payload::Bytes(content) => content.length(),
        Payload::Parts(parts) => parts.iter().map(|part| part.content.length()).sum(),
        Payload::Json(value) => value.to_string().len() as u64,
        Payload::Image(_) | Payload::Vector(_) => 0,
    };
    json!({
        "id": found.id,
        "flow": envelope.flow,
        "event": envelope.id,
        "request": envelope.request,
        "lane": envelope.lane,
        "time": envelope.time.format(&time::format_description::well_known::Rfc3339).ok(),
        "stage": **stage,
        "attempts": (*faults).max(1),
        "deliveries": envelope.attempt,
        "cause": { "status": cause.status, "code": cause.code, "detail": cause.detail },
        "error": error.as_deref(),
        "payload_kind": payload.kind().to_string(),
        "payload_bytes": length,
    })
}

/// A payload as JSON: content that is not text is shown as its type and length.
fn payload(payload: &Payload) -> Value {
    let content = |content: &Content| match &content.body {
        Body::Inline(bytes)
            if content.media_type.starts_with("text/") || &*content.media_type == "application/json" =>
        {
            Value::from(String::from_utf8_lossy(bytes))
        }
        _ => json!({ "type": &*content.media_type, "length": content.length() }),
    };
    match payload {
        Payload::Json(value) => (**value).clone(),
        Payload::Bytes(bytes) => content(bytes),
        Payload::Parts(parts) => {
            parts.iter().map(|part| json!({ "name": &*part.name, "content": content(&part.content) })).collect()
        }
        Payload::Image(_) | Payload::Vector(_) => Value::Null,
    }
}
