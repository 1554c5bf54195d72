//! `/v1/dead-letters`: what ended in failure, to be looked at, retried or dropped.
//!
//! A retry is a new request: its id follows from the letter's place, so that two people who retry the same letter start
//! it once. Its deadline is gone, for it passed long ago. Where callers are asked who they are, only administrators see
//! dead letters, for they are everybody's.

use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use pipeline::{
    Body, Content, DeadLetter, KeptLetter, Payload, RequestId, Submission, Submitted, TransportError, claims,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::identity::caller::Caller;
use crate::identity::tenant;
use crate::intake;
use crate::keep;
use crate::masked;
use crate::params::{Segment, token};
use crate::problem::Problem;
use crate::requests;
use crate::state::GatewayState;

/// Letters in one answer, at most and by default.
const MOST: usize = 100;

/// What the name of a retried event is made of beside the letter's place.
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
    let limit = selection.limit.unwrap_or(MOST).clamp(1, MOST);
    let letters = state.transport.dead_letters(flow.as_ref(), selection.from, limit).await?;
    let next = letters.last().filter(|_| letters.len() == limit).map(|last| last.id + 1);
    let letters: Vec<Value> = letters.iter().map(describe).collect();
    Ok(Json(json!({ "dead_letters": letters, "next": next })))
}

/// `GET /v1/dead-letters/{id}`: with parameters, and the payload where it is JSON or short text.
pub async fn show(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Json<Value>, Problem> {
    caller.expect_admin()?;
    let kept = find(&state, &id).await?;
    let mut shown = describe(&kept);
    shown["params"] = masked::params(&kept.letter.envelope.params);
    shown["payload"] = payload(&kept.letter.payload);
    Ok(Json(shown))
}

/// `POST /v1/dead-letters/{id}/retry`: 202 with the new request.
pub async fn retry(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    caller.expect_admin()?;
    let kept = find(&state, &id).await?;
    let flow = kept.letter.envelope.flow.clone();
    let request = resubmit(&state, &kept).await?;
    // After the new event is kept: a crash in between leaves a letter too many, not one too few.
    state.transport.remove_dead_letter(kept.id).await?;
    intake::discard(&*state.transport, kept.letter.payload.claims()).await;
    let body = json!({ "id": request, "flow": flow, "status": requests::QUEUED });
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    let location = format!("/v1/requests/{request}");
    let location = HeaderValue::from_str(&location).expect("a token is header text");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `DELETE /v1/dead-letters/{id}`: with whatever it kept in the object store.
pub async fn drop(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<StatusCode, Problem> {
    caller.expect_admin()?;
    let kept = find(&state, &id).await?;
    state.transport.remove_dead_letter(kept.id).await?;
    intake::discard(&*state.transport, kept.letter.payload.claims()).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn resubmit(state: &GatewayState, kept: &KeptLetter) -> Result<RequestId, Problem> {
    let DeadLetter { mut envelope, payload, .. } = kept.letter.clone();
    envelope.id = envelope.id.child(RETRY, u32::try_from(kept.id).unwrap_or(u32::MAX));
    if let Some(tenant) = envelope.tenant() {
        envelope.id = tenant::tagged(&envelope.id, tenant);
    }
    envelope.request = Some(envelope.id.clone());
    envelope.deadline = None;
    let (request, flow, lane) = (envelope.id.clone(), envelope.flow.clone(), envelope.lane);
    // The event gets bodies of its own: those of the letter go with it.
    let payload = claims::storable(&*state.transport, &flow, &payload).await?;
    let copies = payload.claims();
    match state.transport.submit(Submission { envelope, payload }).await {
        Ok(Submitted::Stored) => {}
        Ok(Submitted::Known) => intake::discard(&*state.transport, copies).await,
        // It may be stored all the same.
        Err(error @ TransportError::Unavailable(_)) => return Err(state.refusal(error, lane).await),
        Err(error) => {
            intake::discard(&*state.transport, copies).await;
            return Err(state.refusal(error, lane).await);
        }
    }
    keep::accept(state.clone(), request.clone(), flow).await;
    Ok(request)
}

async fn find(state: &GatewayState, id: &str) -> Result<KeptLetter, Problem> {
    let shown: String = id.chars().take(32).collect();
    let id: u64 = id.parse().map_err(|_| {
        Problem::malformed("bad_parameter", format!("the id of a dead letter is a number, {shown:?} is none"))
    })?;
    let found = state.transport.dead_letters(None, id, 1).await?;
    found
        .into_iter()
        .find(|kept| kept.id == id)
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no_dead_letter", format!("no dead letter has the id {id}")))
}

fn describe(kept: &KeptLetter) -> Value {
    let DeadLetter { envelope, payload, stage, faults, cause, error } = &kept.letter;
    let length: u64 = match payload {
        Payload::Bytes(content) => content.length(),
        Payload::Parts(parts) => parts.iter().map(|part| part.content.length()).sum(),
        Payload::Json(value) => value.to_string().len() as u64,
        Payload::Image(_) | Payload::Vector(_) => 0,
    };
    json!({
        "id": kept.id,
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

/// What of a payload can be shown as JSON.
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
