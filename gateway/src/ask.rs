//! A request of a flow's route, from its headers to its answer.
//!
//! The id is minted first, the results are watched before the event is submitted, and the submission runs in a task of
//! its own ([`crate::keep`]): a client that leaves, at whatever moment, leaves no request or a whole one.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pipeline::{Envelope, FlowName, Lane, Params, RequestId, TransportError};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::answer::sse::Ends;
use crate::answer::{self, Waiting, Worked};
use crate::follow::Follower;
use crate::idempotency::{Key, REPLAYED};
use crate::identity::caller::Caller;
use crate::identity::tenant;
use crate::intake::{self, Head};
use crate::keep::{Keeping, Kept, keep};
use crate::limit::ClientLimit;
use crate::params;
use crate::problem::Problem;
use crate::requests::CancelOnDrop;
use crate::spec::{BodyKind, RouteSpec};
use crate::state::GatewayState;
use crate::trace::{self, TRACE_HEADER};
use crate::webhook::{self, Dialect};
use crate::wish::{How, Wish};

/// The header that every answer of a flow's route carries.
pub const REQUEST_HEADER: HeaderName = HeaderName::from_static("caudal-request");

/// A route at work.
pub struct Route {
    pub spec: RouteSpec,
    pub flow: FlowName,
    status: StatusCode,
    limit: Option<Arc<ClientLimit>>,
}

impl Route {
    /// A route that starts a flow.
    pub fn new(spec: RouteSpec, flow: FlowName, limit: Option<Arc<ClientLimit>>) -> Self {
        let status = StatusCode::from_u16(spec.status).unwrap_or(StatusCode::OK);
        Self { spec, flow, status, limit }
    }
}

/// One request of a flow's route.
struct Ask<'a> {
    state: &'a GatewayState,
    route: &'a Arc<Route>,
    caller: &'a Caller,
}

/// What came of the path, where it could be read.
type Path = Result<RawPathParams, RawPathParamsRejection>;

/// Answers one request of a flow's route.
pub async fn handle(state: GatewayState, caller: Caller, route: Arc<Route>, path: Path, request: Request) -> Response {
    let begun = Instant::now();
    let mut id = caller.mint();
    let limited = route.limit.as_ref().map(|limit| limit.admit(caller.client()));
    let (allowed, admitted) = limited.map_or((None, Ok(())), |(allowed, admitted)| (Some(allowed), admitted));
    let ask = Ask { state: &state, route: &route, caller: &caller };
    let answered = match admitted {
        Ok(()) => ask.answer(&mut id, path, request).await,
        Err(problem) => Err(problem),
    };
    let mut response = answered.unwrap_or_else(|problem| problem.with_request(&id).into_response());
    let value = HeaderValue::from_str(id.as_str()).expect("a token is header text");
    response.headers_mut().insert(REQUEST_HEADER, value);
    timing(begun, &mut response);
    allowed.into_iter().for_each(|allowed| allowed.write(response.headers_mut()));
    response
}

impl Ask<'_> {
    /// `id` is for a new request, and becomes that of the first where this is its repeat.
    async fn answer(&self, id: &mut RequestId, path: Path, request: Request) -> Result<Response, Problem> {
        let Self { state, route, .. } = *self;
        let (parts, body) = request.into_parts();
        let (mut envelope, head) = self.check(id, path, &parts)?;
        let webhook = if route.spec.webhook {
            webhook::note(&parts.headers, &mut envelope.params, state.caller.as_deref())?
        } else {
            None
        };
        let key = Key::read(&parts.headers, self.caller.tenant(), &route.spec)?;
        if let Err(full) = admit(state, &envelope).await {
            // What is kept already needs no room.
            match &key {
                Some(key) if key.is_known(&*state.transport).await => {}
                _ => return Err(full),
            }
        }
        let wish = Wish::read(&parts.headers);
        let how = if route.spec.record.is_some() || webhook.is_some() { How::Later } else { wish.how };
        let slot = match how {
            How::Stream => Some(answer::sse::slot(state, self.caller)?),
            How::Wait | How::Later => None,
        };
        let mut follower = (how != How::Later).then(|| Follower::fresh(state, id));
        let (lane, trace) = (envelope.lane, envelope.traceparent.clone());
        let begun = Instant::now();
        let keeping = Keeping { state: state.clone(), route: Arc::clone(route), envelope, how, key };
        let Kept { request, status, record, leaving } = keep(keeping, head, body).await?;
        let intake = begun.elapsed();
        let repeats = request != *id;
        if repeats {
            *id = request;
            if follower.is_some() {
                follower = Some(Follower::attach(state, id).await?);
            }
        }
        let waiting = Waiting { state, id, flow: &route.flow, lane };
        let mut response = match (follower, slot) {
            (Some(follower), Some(slot)) => {
                let ends = Ends { leaving, ..Ends::of(self.caller) };
                answer::sse::stream(state, follower, slot, ends)
            }
            (Some(follower), None) => {
                let longest = wish.wait.unwrap_or(route.spec.wait).min(route.spec.wait);
                let waited = waiting.wait(follower, longest, route.status).await;
                leaving.into_iter().for_each(CancelOnDrop::disarm);
                waited?
            }
            (None, _) => {
                leaving.into_iter().for_each(CancelOnDrop::disarm);
                match record {
                    Some(record) => {
                        (route.status, [(header::CONTENT_TYPE, "application/json")], record).into_response()
                    }
                    None if webhook == Some(Dialect::Gotenberg) => StatusCode::NO_CONTENT.into_response(),
                    None => waiting.later(status, true).await,
                }
            }
        };
        if let Some(trace) = trace.and_then(|trace| HeaderValue::from_str(&trace).ok()) {
            response.headers_mut().insert(TRACE_HEADER, trace);
        }
        response.extensions_mut().insert(Taken { intake });
        if repeats {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(response)
    }

    /// Checks everything but the body.
    fn check(&self, id: &RequestId, path: Path, parts: &Parts) -> Result<(Envelope, Head), Problem> {
        let route = self.route;
        let mut params = Params::new();
        params::of_path(path, &mut params)?;
        params::of_query(&parts.uri, &route.spec.query, &mut params)?;
        let head = intake::admit(&route.spec.body, &parts.headers)?;
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
        envelope.traceparent = Some(trace::place_of(parts).to_string().into());
        envelope.params = params;
        if let Some(principal) = &caller.principal {
            tenant::note(principal, &mut envelope);
        }
        let deadline = state.flows.get(&route.flow).and_then(|flow| flow.deadline);
        envelope.deadline = deadline.map(|deadline| OffsetDateTime::now_utc() + deadline);
        envelope
    }
}

/// How long the body of a request took until it was kept.
#[derive(Clone, Copy)]
struct Taken {
    intake: Duration,
}

/// Stages that an answer names.
const MOST_STAGES: usize = 16;

/// Says in the answer how long its parts took (W3C Server Timing): `intake` until the request was kept, `flow` from then to
/// its result, and of that `queue` while no stage had it in hand, and each stage by its name; `total` is all of it.
fn timing(begun: Instant, response: &mut Response) {
    let total = begun.elapsed();
    let mut text = String::new();
    let mut entry = |name: &str, time: Duration| {
        // Writing to a string does not fail.
        let _ = write!(text, "{name};dur={:.1}, ", time.as_secs_f64() * 1e3);
    };
    if let Some(Taken { intake }) = response.extensions_mut().remove() {
        let flow = total.saturating_sub(intake);
        entry("intake", intake);
        entry("flow", flow);
        if let Some(Worked(stages)) = response.extensions_mut().remove() {
            entry("queue", flow.saturating_sub(stages.iter().map(|(_, took)| *took).sum()));
            for (stage, took) in stages.iter().take(MOST_STAGES).filter(|(stage, _)| is_token(stage)) {
                entry(stage, *took);
            }
        }
    }
    entry("total", total);
    if let Ok(value) = HeaderValue::from_str(text.trim_end_matches(", ")) {
        response.headers_mut().insert(HeaderName::from_static("server-timing"), value);
    }
}

/// Whether a name can stand in a header as it is.
fn is_token(name: &str) -> bool {
    pipeline::Token::new(name).is_ok()
}

/// Refuses at the door what there is no room for, and what would be too late when its turn comes.
async fn admit(state: &GatewayState, envelope: &Envelope) -> Result<(), Problem> {
    let (flow, lane) = (&envelope.flow, envelope.lane);
    if state.pace.is_full(flow, lane).await {
        return Err(state.refusal(TransportError::Full { flow: flow.clone() }, lane).await);
    }
    let Some(deadline) = state.flows.get(flow).and_then(|flow| flow.deadline) else { return Ok(()) };
    let Some(outlook) = state.pace.outlook(flow, lane).await else {
        let detail = "it cannot be told whether the request would be in time: come again";
        return Err(Problem::unavailable("wait_unknown", detail));
    };
    match outlook.wait {
        Some(wait) if wait > deadline => {
            let (wait, limit) = (wait.as_secs_f64(), deadline.as_secs_f64());
            let detail = format!("a new request would wait {wait:.1} s and is worth {limit:.1} s: come again later");
            Err(Problem::unavailable("would_be_late", detail).with_retry_after(state.pace.retry_after(flow)))
        }
        _ => Ok(()),
    }
}
