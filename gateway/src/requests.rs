//! `/v1/requests/{id}`: where a request stands, its results as events or as a file, and its cancellation.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pipeline::{Content, FlowName, Outcome, OutcomeKind, Published, RequestId, Transport, TransportError};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::answer::{self, problem_of};
use crate::follow::Follower;
use crate::identity::caller::Caller;
use crate::params::{Segment, token};
use crate::problem::Problem;
use crate::state::GatewayState;

/// The status of a request that nobody works on yet.
pub const QUEUED: &str = "queued";

/// How often a cancellation that met another result at its ordinal is tried again.
const CANCEL_ATTEMPTS: usize = 16;

/// What a result says about its request.
pub fn status_of(kind: OutcomeKind) -> &'static str {
    match kind {
        OutcomeKind::Accepted => QUEUED,
        OutcomeKind::Progress | OutcomeKind::Data => "running",
        terminal => terminal.as_str(),
    }
}

/// The last result, terminal before any other.
fn decisive(outcomes: &[Outcome]) -> Option<&Outcome> {
    outcomes.iter().find(|outcome| outcome.kind.is_terminal()).or(outcomes.last())
}

/// Where a request stands; `None` where nothing is known of it.
pub fn standing(outcomes: &[Outcome]) -> Option<&'static str> {
    decisive(outcomes).map(|last| status_of(last.kind))
}

fn unknown(id: &RequestId) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_request",
        format!("no request {id} is known: it was never accepted, or is forgotten"),
    )
}

/// The id of a request that the caller may see; of any other it is not said whether it exists.
pub fn theirs(caller: &Caller, id: &str) -> Result<RequestId, Problem> {
    let id = token("id", id)?;
    if caller.may_see(&id) { Ok(id) } else { Err(unknown(&id)) }
}

#[derive(Serialize)]
struct Standing<'a> {
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

/// `GET /v1/requests/{id}`. A result that is JSON is in the answer; any other is a link, with its type and length.
pub async fn show(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    let id = theirs(&caller, &id)?;
    let outcomes = state.transport.outcomes(&id).await?;
    let (Some(first), Some(last)) = (outcomes.first(), decisive(&outcomes)) else { return Err(unknown(&id)) };
    let link = RawValue::from_string(format!("\"/v1/requests/{id}/result\"")).map_err(|_| Problem::internal())?;
    let done = last.kind == OutcomeKind::Done;
    let inline = done.then(|| inline_json(&last.content)).flatten();
    let linked = done && inline.is_none();
    let failed = last.kind.is_terminal() && !done;
    let standing = Standing {
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
    Ok(axum::Json(standing).into_response())
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

/// `GET /v1/requests/{id}/result`: the answer itself, with its media type.
pub async fn result(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    let id = theirs(&caller, &id)?;
    let outcomes = state.transport.outcomes(&id).await?;
    let last = decisive(&outcomes).ok_or_else(|| unknown(&id))?;
    if !last.kind.is_terminal() {
        let detail = format!("request {id} is {}: it has no result yet", status_of(last.kind));
        return Err(Problem::new(StatusCode::CONFLICT, "not_ended", detail).with_request(&id));
    }
    answer::terminal(&state, last, StatusCode::OK).await.map_err(|problem| problem.with_request(&id))
}

/// `GET /v1/requests/{id}/events`, from the first result or after `Last-Event-ID`. 204 when nothing can follow, which is
/// how an `EventSource` is told to stop asking.
pub async fn events(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = theirs(&caller, &id)?;
    let after = last_event_id(&headers)?;
    let slot = answer::sse::slot(&state, &caller)?;
    let follower = Follower::resume(&state, &id, after).await?.ok_or_else(|| unknown(&id))?;
    if follower.ended() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(answer::sse::stream(&state, follower, slot, answer::sse::Ends::of(&caller)))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let Some(given) = headers.get("last-event-id") else { return Ok(None) };
    let text = given.to_str().unwrap_or_default().trim();
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        Problem::malformed(
            "bad_last_event_id",
            "Last-Event-ID must be the id of an event of this request, a whole number",
        )
    };
    text.parse().map(Some).map_err(|_| wrong())
}

/// `DELETE /v1/requests/{id}`.
pub async fn cancel(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    let id = theirs(&caller, &id)?;
    let outcomes = state.transport.outcomes(&id).await?;
    let first = outcomes.first().ok_or_else(|| unknown(&id))?;
    match publish_cancelled(&*state.transport, &first.flow, &id).await? {
        Cancelled::Now => {
            let body = json!({ "id": id, "flow": first.flow, "status": OutcomeKind::Cancelled.as_str() });
            Ok(([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response())
        }
        Cancelled::AlreadyEnded(kind) => {
            let detail = format!("request {id} has already ended: it is {}", status_of(kind));
            Err(Problem::new(StatusCode::CONFLICT, "already_ended", detail).with_request(&id))
        }
    }
}

enum Cancelled {
    Now,
    AlreadyEnded(OutcomeKind),
}

/// Stores the terminal `cancelled`, unless there is a terminal already.
async fn publish_cancelled(
    transport: &dyn Transport,
    flow: &FlowName,
    request: &RequestId,
) -> Result<Cancelled, TransportError> {
    for _ in 0..CANCEL_ATTEMPTS {
        let outcomes = transport.outcomes(request).await?;
        if let Some(last) = decisive(&outcomes).filter(|last| last.kind.is_terminal()) {
            return Ok(Cancelled::AlreadyEnded(last.kind));
        }
        // Ordinal 0 is kept for `accepted`, which may still be on its way.
        let ordinal = outcomes.last().map_or(1, |last| last.ordinal + 1);
        let outcome = Outcome::new(OutcomeKind::Cancelled, ordinal, flow.clone(), Content::json(&json!({})));
        if transport.publish_outcome(request, &outcome).await? == Published::Stored {
            return Ok(Cancelled::Now);
        }
    }
    Err(TransportError::unavailable("every ordinal was taken before the cancellation"))
}

/// Cancels a request when dropped: its client left, and the route says that then nobody wants it.
pub struct CancelOnDrop {
    cancels: Option<(GatewayState, FlowName, RequestId)>,
}

impl CancelOnDrop {
    pub fn new(state: &GatewayState, flow: &FlowName, request: &RequestId) -> Self {
        Self { cancels: Some((state.clone(), flow.clone(), request.clone())) }
    }

    /// The client got its answer.
    pub fn disarm(mut self) {
        self.cancels = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let Some((state, flow, request)) = self.cancels.take() else { return };
        let tasks = state.tasks.clone();
        tasks.spawn(async move {
            if let Err(error) = publish_cancelled(&*state.transport, &flow, &request).await {
                tracing::warn!(%request, %error, "request of a client that left not cancelled");
            }
        });
    }
}
