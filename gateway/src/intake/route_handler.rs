//! The handler of a flow's route: a request, from its headers to its answer.
//!
//! The id is minted first, the results are watched before the event is submitted, and the submission runs in a task of
//! its own (`submit.rs`): a client that disconnects, at whatever moment, leaves no request or a whole one.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pipeline::{Envelope, Lane, Params, RequestId};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::body::head::{self, BodyHead};
use super::idempotency::{IdempotencyKey, REPLAYED};
use super::params;
use super::preferences::{AnswerMode, Preferences};
use super::route::Route;
use super::submit::{NewRequest, StoredRequest, submit};
use super::webhook_headers::{self, Dialect};
use super::{acceptance, admission};
use crate::answer::cancel::CancelOnDrop;
use crate::answer::follower::Follower;
use crate::answer::server_timing::{self, IntakeTime};
use crate::answer::sse::{self, StreamLifetime};
use crate::answer::stream_slot::{self, StreamSlot};
use crate::answer::wait::{PendingAnswer, Waited};
use crate::door::trace;
use crate::header_names::{GOTENBERG_TRACE, IGNORED_PARTS, REQUEST_ID, TRACEPARENT};
use crate::identity::caller::Caller;
use crate::identity::tenant;
use crate::problem::Problem;
use crate::spec::BodyKind;
use crate::state::GatewayState;

/// The parameters of a path, if they could be read.
type Path = Result<RawPathParams, RawPathParamsRejection>;

/// Answers one request of a flow's route.
pub async fn handle(state: GatewayState, caller: Caller, route: Arc<Route>, path: Path, request: Request) -> Response {
    let begun = Instant::now();
    let mut id = caller.mint();
    let gotenberg_trace = request.headers().get(GOTENBERG_TRACE).cloned();
    let limited = route.limit.as_ref().map(|limit| limit.admit(caller.client()));
    let (headers, admitted) = limited.map_or((None, Ok(())), |(headers, admitted)| (Some(headers), admitted));
    let handler = RouteHandler { state: &state, route: &route, caller: &caller };
    let answered = match admitted {
        Ok(()) => handler.answer(&mut id, path, request).await,
        Err(problem) => Err(problem),
    };
    let mut response = answered.unwrap_or_else(|problem| problem.with_request(&id).into_response());
    let value = HeaderValue::from_str(id.as_str()).expect("a token is header text");
    response.headers_mut().insert(REQUEST_ID, value);
    gotenberg_trace.map(|trace| response.headers_mut().insert(GOTENBERG_TRACE, trace));
    server_timing::write(begun.elapsed(), &mut response);
    headers.into_iter().for_each(|headers| headers.write(response.headers_mut()));
    response
}

/// One request of a flow's route.
struct RouteHandler<'a> {
    state: &'a GatewayState,
    route: &'a Arc<Route>,
    caller: &'a Caller,
}

/// How a request will be answered, once it is stored.
struct AnswerPlan {
    mode: AnswerMode,
    /// How long a client waits for the result.
    timeout: Duration,
    webhook: Option<Dialect>,
    /// Follows the results, unless the answer is 202 at once.
    follower: Option<Follower>,
    /// For an answer that is an event stream.
    slot: Option<StreamSlot>,
}

impl RouteHandler<'_> {
    /// `id` is the id of a new request; for a repeat it becomes that of the first request.
    async fn answer(&self, id: &mut RequestId, path: Path, request: Request) -> Result<Response, Problem> {
        let Self { state, route, caller } = *self;
        let (parts, body) = request.into_parts();
        let (mut envelope, head) = self.check(id, path, &parts)?;
        let webhook = if route.spec.webhook {
            webhook_headers::read(&parts.headers, &mut envelope.params, state.webhook_caller.as_deref())?
        } else {
            None
        };
        let key = IdempotencyKey::read(&parts.headers, caller.tenant(), &route.spec)?;
        self.admit(&envelope, key.as_ref()).await?;
        let mut plan = self.plan(id, Preferences::read(&parts.headers), webhook)?;
        let (lane, traceparent) = (envelope.lane, envelope.traceparent.clone());
        let begun = Instant::now();
        let new = NewRequest { state: state.clone(), route: Arc::clone(route), envelope, mode: plan.mode, key };
        let stored = submit(new, head, body).await?;
        let intake = begun.elapsed();
        let (is_repeat, ignored_parts) = (stored.id != *id, ignored_parts(&stored.ignored_parts));
        if is_repeat {
            id.clone_from(&stored.id);
            if plan.follower.is_some() {
                plan.follower = Some(Follower::attach(state, id).await?);
            }
        }
        let mut response = self.respond(id, lane, plan, stored).await?;
        if let Some(value) = traceparent.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(TRACEPARENT, value);
        }
        ignored_parts.map(|names| response.headers_mut().insert(IGNORED_PARTS, names));
        response.extensions_mut().insert(IntakeTime(intake));
        if is_repeat {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(response)
    }

    /// Validates everything but the body.
    fn check(&self, id: &RequestId, path: Path, parts: &Parts) -> Result<(Envelope, BodyHead), Problem> {
        let route = self.route;
        let mut params = Params::new();
        params::of_path(path, &mut params)?;
        params::of_query(&parts.uri, &route.spec.query, &mut params)?;
        let head = head::check(&route.spec.body, &parts.headers)?;
        Ok((self.envelope(id, params, parts), head))
    }

    fn envelope(&self, id: &RequestId, params: Params, parts: &Parts) -> Envelope {
        let Self { state, route, caller } = *self;
        let mut envelope = Envelope::new(route.flow.clone(), id.clone());
        envelope.kind = format!("caudal.{}", route.flow).into();
        envelope.source = route.spec.path.as_str().into();
        envelope.lane = route.spec.lane;
        let open = matches!(route.spec.body.kind, BodyKind::Open { .. });
        if open && params.get("lane").is_some_and(|lane| lane == "bulk") {
            envelope.lane = Lane::Bulk;
        }
        envelope.request = Some(id.clone());
        envelope.traceparent = Some(trace::context_of(parts).to_string().into());
        envelope.params = params;
        if let Some(principal) = &caller.principal {
            tenant::add_to(principal, &mut envelope);
        }
        let deadline = state.flows.get(&route.flow).and_then(|flow| flow.deadline);
        envelope.deadline = deadline.map(|deadline| OffsetDateTime::now_utc() + deadline);
        envelope
    }

    /// Admission control. A repeat of a known request is always admitted, because it needs no room.
    async fn admit(&self, envelope: &Envelope, key: Option<&IdempotencyKey>) -> Result<(), Problem> {
        let Err(refused) = admission::admit(self.state, envelope).await else { return Ok(()) };
        match key {
            Some(key) if key.is_known(&*self.state.transport).await => Ok(()),
            _ => Err(refused),
        }
    }

    /// Decides how to answer, takes a slot for an event stream, and begins to watch for results.
    fn plan(&self, id: &RequestId, preferences: Preferences, webhook: Option<Dialect>) -> Result<AnswerPlan, Problem> {
        let spec = &self.route.spec;
        let mode = if spec.record.is_some() || webhook.is_some() { AnswerMode::Async } else { preferences.mode };
        let slot = match mode {
            AnswerMode::Stream => Some(stream_slot::acquire(self.state, self.caller)?),
            AnswerMode::Wait | AnswerMode::Async => None,
        };
        let follower = (mode != AnswerMode::Async).then(|| Follower::fresh(self.state, id));
        let timeout = preferences.wait.unwrap_or(spec.wait).min(spec.wait);
        Ok(AnswerPlan { mode, timeout, webhook, follower, slot })
    }

    /// Answers a stored request as planned. If this future is dropped, the client has disconnected.
    async fn respond(
        &self,
        id: &RequestId,
        lane: Lane,
        plan: AnswerPlan,
        stored: StoredRequest,
    ) -> Result<Response, Problem> {
        let Self { state, route, caller } = *self;
        let StoredRequest { status, record, on_disconnect, .. } = stored;
        let pending = PendingAnswer { state, id, flow: &route.flow, lane };
        let (follower, slot) = match (plan.follower, plan.slot) {
            (Some(follower), slot) => (follower, slot),
            (None, _) => {
                disarm(on_disconnect);
                return Ok(match record {
                    Some(record) => {
                        (route.status, [(header::CONTENT_TYPE, "application/json")], record).into_response()
                    }
                    None if plan.webhook == Some(Dialect::Gotenberg) => StatusCode::NO_CONTENT.into_response(),
                    None => pending.accepted(status, true).await,
                });
            }
        };
        if let Some(slot) = slot {
            let lifetime = StreamLifetime { on_disconnect, ..StreamLifetime::of(caller) };
            return Ok(sse::stream(state, follower, slot, lifetime));
        }
        let answered = self.wait(&pending, follower, plan.timeout).await;
        disarm(on_disconnect);
        answered
    }

    /// The result, or 202 once `/v1/requests/{id}` knows the request.
    async fn wait(
        &self,
        pending: &PendingAnswer<'_>,
        follower: Follower,
        timeout: Duration,
    ) -> Result<Response, Problem> {
        match pending.wait(follower, timeout, self.route.status).await? {
            Waited::Answered(response) => Ok(response),
            Waited::NotYet { status, is_known } => {
                if !is_known {
                    acceptance::record(&*self.state.transport, pending.id, &self.route.flow).await?;
                }
                Ok(pending.accepted(status, false).await)
            }
        }
    }
}

/// Names of parts as a list of quoted texts (RFC 9651) in ASCII; `None` if there are none.
fn ignored_parts(names: &[String]) -> Option<HeaderValue> {
    let plain = |c: char| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') { c } else { '?' };
    let quoted: Vec<String> =
        names.iter().map(|name| format!("\"{}\"", name.chars().map(plain).collect::<String>())).collect();
    if quoted.is_empty() { None } else { HeaderValue::from_str(&quoted.join(", ")).ok() }
}

fn disarm(on_disconnect: Option<CancelOnDrop>) {
    on_disconnect.into_iter().for_each(CancelOnDrop::disarm);
}

#[cfg(test)]
mod tests;
