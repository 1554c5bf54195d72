//! A request of a flow's route, from its headers to its answer.
//!
//! The id is minted first, the results are watched before the event is submitted, and the submission runs in a task of
//! its own: a client that leaves, at whatever moment, leaves no request or a whole one. The record of a report is written
//! before its event, so that whoever knows the id finds it; an event that is refused takes its record back.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pipeline::{
    Content, Envelope, FlowName, Lane, Outcome, OutcomeKind, Params, RequestId, Submission, TransportError,
};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::answer::sse::Ends;
use crate::answer::{self, Waiting};
use crate::follow::Follower;
use crate::identity::caller::Caller;
use crate::identity::tenant;
use crate::intake::{self, Allowance, Head, Taken};
use crate::limit::ClientLimit;
use crate::params;
use crate::problem::Problem;
use crate::record::Record;
use crate::requests::{self, CancelOnDrop};
use crate::spec::{BodyKind, RouteSpec};
use crate::state::GatewayState;
use crate::wish::{How, Wish};

/// The header that every answer of a flow's route carries.
pub const REQUEST_HEADER: HeaderName = HeaderName::from_static("caudal-request");

/// A route at work.
pub struct Route {
    spec: RouteSpec,
    flow: FlowName,
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
    let id = caller.mint();
    let limited = route.limit.as_ref().map(|limit| limit.admit(caller.client()));
    let (allowed, admitted) = limited.map_or((None, Ok(())), |(allowed, admitted)| (Some(allowed), admitted));
    let ask = Ask { state: &state, route: &route, caller: &caller };
    let answered = match admitted {
        Ok(()) => ask.answer(&id, path, request).await,
        Err(problem) => Err(problem),
    };
    let mut response = answered.unwrap_or_else(|problem| problem.with_request(&id).into_response());
    let value = HeaderValue::from_str(id.as_str()).expect("a token is header text");
    response.headers_mut().insert(REQUEST_HEADER, value);
    allowed.into_iter().for_each(|allowed| allowed.write(response.headers_mut()));
    response
}

impl Ask<'_> {
    async fn answer(&self, id: &RequestId, path: Path, request: Request) -> Result<Response, Problem> {
        let Self { state, route, .. } = *self;
        let (parts, body) = request.into_parts();
        let (envelope, head) = self.check(id, path, &parts)?;
        admit(state, &envelope).await?;
        let wish = Wish::read(&parts.headers);
        let how = if route.spec.record.is_some() { How::Later } else { wish.how };
        let slot = match how {
            How::Stream => Some(answer::sse::slot(state, self.caller)?),
            How::Wait | How::Later => None,
        };
        let follower = (how != How::Later).then(|| Follower::fresh(&state.transport, id));
        let waiting = Waiting { state, id, flow: &route.flow, lane: envelope.lane };
        let Kept { record, leaving } = keep(state, route, envelope, head, body, how).await?;
        let answered = match (follower, slot) {
            (Some(follower), Some(slot)) => {
                let ends = Ends { leaving, ..Ends::of(self.caller) };
                return Ok(answer::sse::stream(state, follower, slot, ends));
            }
            (Some(follower), None) => {
                let longest = wish.wait.unwrap_or(route.spec.wait).min(route.spec.wait);
                waiting.wait(follower, longest, route.status).await
            }
            (None, _) => Ok(match record {
                Some(record) => (route.status, [(header::CONTENT_TYPE, "application/json")], record).into_response(),
                None => waiting.later(requests::QUEUED, true).await,
            }),
        };
        leaving.into_iter().for_each(CancelOnDrop::disarm);
        answered
    }

    /// Checks everything but the body.
    fn check(&self, id: &RequestId, path: Path, parts: &Parts) -> Result<(Envelope, Head), Problem> {
        let route = self.route;
        let mut params = Params::new();
        params::of_path(path, &mut params)?;
        params::of_query(&parts.uri, &route.spec.query, &mut params)?;
        let head = intake::admit(&route.spec.body, &parts.headers)?;
        Ok((self.envelope(id, params, &parts.headers), head))
    }

    fn envelope(&self, id: &RequestId, params: Params, headers: &HeaderMap) -> Envelope {
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
        envelope.traceparent = traceparent(headers).map(Into::into);
        envelope.params = params;
        if let Some(principal) = &caller.principal {
            tenant::note(principal, &mut envelope);
        }
        let deadline = state.flows.get(&route.flow).and_then(|flow| flow.deadline);
        envelope.deadline = deadline.map(|deadline| OffsetDateTime::now_utc() + deadline);
        envelope
    }
}

/// The caller's trace context, if it is well-formed (W3C Trace Context, section 3.2.2).
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let fields: Vec<&str> = text.split('-').collect();
    let hex =
        |field: &str, length| field.len() == length && field.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let [version, trace, parent, flags] = fields.as_slice() else { return None };
    let whole = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    let nonzero = |field: &str| field.bytes().any(|b| b != b'0');
    (whole && *version != "ff" && nonzero(trace) && nonzero(parent)).then_some(text)
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
            Err(Problem::unavailable("would_be_late", detail).with_retry_after(state.pace.retry_after(flow).await))
        }
        _ => Ok(()),
    }
}

/// A request that the broker has stored.
struct Kept {
    /// As written, where the route keeps one.
    record: Option<Bytes>,
    /// Where the route says so: dropped with the handler, or on the way to it, it cancels the request.
    leaving: Option<CancelOnDrop>,
}

/// Reads the body and submits the event, in a task that goes on when the client leaves.
async fn keep(
    state: &GatewayState,
    route: &Arc<Route>,
    envelope: Envelope,
    head: Head,
    body: Body,
    how: How,
) -> Result<Kept, Problem> {
    let allowance = Allowance::new(&state.limits, head.length, head.max_bytes);
    let (pump, feed) = intake::channel();
    let (done, mut kept) = oneshot::channel();
    let keeping = Keeping { state: state.clone(), route: Arc::clone(route), envelope, how };
    state.tasks.spawn(async move {
        let taken = intake::take(&keeping.state, &keeping.route.spec.body, head, feed).await;
        let result = match taken {
            Ok(taken) => keeping.finish(taken).await,
            Err(problem) => Err(problem),
        };
        // Refused if the client left: what is sent back is then dropped here.
        drop(done.send(result));
    });
    if route.spec.body.kind != BodyKind::None {
        tokio::select! {
            biased;
            kept = &mut kept => return kept.unwrap_or_else(|_| Err(Problem::internal())),
            () = pump.run(body, allowance) => {}
        }
    }
    kept.await.unwrap_or_else(|_| Err(Problem::internal()))
}

/// What remains to be done once the body is kept.
struct Keeping {
    state: GatewayState,
    route: Arc<Route>,
    envelope: Envelope,
    how: How,
}

impl Keeping {
    async fn finish(mut self, taken: Taken) -> Result<Kept, Problem> {
        let claims = taken.payload.claims();
        let written = match self.write_record(taken.record).await {
            Ok(written) => written,
            Err(problem) => {
                intake::discard(&*self.state.transport, claims).await;
                return Err(problem);
            }
        };
        let request = self.envelope.id.clone();
        let lane = self.envelope.lane;
        let submission = Submission { envelope: self.envelope, payload: taken.payload };
        if let Err(error) = self.state.transport.submit(submission).await {
            // Without an answer the event may be stored: then its claims and record are needed.
            if !matches!(error, TransportError::Unavailable(_)) {
                intake::discard(&*self.state.transport, claims).await;
                if let Some(written) = &written {
                    written.take_back(&self.state).await;
                }
            }
            return Err(self.state.refusal(error, lane).await);
        }
        let (state, flow) = (&self.state, &self.route.flow);
        let leaving = self.route.spec.cancel_on_disconnect.then(|| CancelOnDrop::new(state, flow, &request));
        let accepting = accept(state.clone(), request, flow.clone());
        if self.how == How::Wait {
            // Whoever waits for the result need not wait for the record of its beginning.
            self.state.tasks.spawn(accepting);
        } else {
            accepting.await;
        }
        Ok(Kept { record: written.map(|written| written.value), leaving })
    }

    async fn write_record(&mut self, fields: Option<Map<String, Value>>) -> Result<Option<Record>, Problem> {
        let (Some(record), Some(fields)) = (&self.route.spec.record, fields) else { return Ok(None) };
        let body = &self.route.spec.body.kind;
        Record::write(&self.state, record, &mut self.envelope, body, fields).await.map(Some)
    }
}

/// Records that the event is stored, as the request's first result.
pub async fn accept(state: GatewayState, request: RequestId, flow: FlowName) {
    let content = Content::json(&json!({ "id": request, "flow": flow, "status": requests::QUEUED }));
    let outcome = Outcome::new(OutcomeKind::Accepted, 0, flow, content);
    if let Err(error) = state.transport.publish_outcome(&request, &outcome).await {
        // The event is stored and will end in a terminal result all the same.
        tracing::warn!(%request, %error, "acceptance not recorded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_context_travels_on() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = |text: &str| {
            let headers = HeaderMap::from_iter([(HeaderName::from_static("traceparent"), text.parse().unwrap())]);
            traceparent(&headers).map(str::to_owned)
        };
        assert_eq!(read(good).as_deref(), Some(good));
        for bad in
            ["", "00-0-0-00", &good.to_uppercase(), &good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32))]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
