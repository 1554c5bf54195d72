//! From a checked request to one that the broker has kept, in a task that goes on when the client leaves.
//!
//! The record of a report is written before its event, so that whoever knows the id finds it; an event that is refused
//! takes its record back, and leaves no body in the store.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use pipeline::{Content, Envelope, FlowName, Outcome, OutcomeKind, RequestId, Submission, Submitted, TransportError};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::ask::Route;
use crate::idempotency::{self, Claimed, Key};
use crate::intake::{self, Allowance, Head, Taken};
use crate::problem::Problem;
use crate::record::{Draft, Record};
use crate::requests::{self, CancelOnDrop};
use crate::spec::BodyKind;
use crate::state::GatewayState;
use crate::wish::How;

/// A request that the broker has stored.
pub struct Kept {
    /// Its id: that of an earlier one, where this is its repeat.
    pub request: RequestId,
    /// Where it stands.
    pub status: &'static str,
    /// As written, where the route keeps one.
    pub record: Option<Bytes>,
    /// Where the route says so: dropped with the handler, or on the way to it, it cancels the request.
    pub leaving: Option<CancelOnDrop>,
}

/// Reads the body and submits the event, in a task that goes on when the client leaves.
pub async fn keep(keeping: Keeping, head: Head, body: Body) -> Result<Kept, Problem> {
    let allowance = Allowance::new(&keeping.state.limits, head.length, head.max_bytes);
    let (pump, feed) = intake::channel();
    let (done, mut kept) = oneshot::channel();
    let (tasks, has_body) = (keeping.state.tasks.clone(), keeping.route.spec.body.kind != BodyKind::None);
    tasks.spawn(async move {
        let route = &keeping.route;
        let taken = intake::take(&keeping.state, &route.flow, &route.spec.body, head, feed).await;
        let result = match taken {
            Ok(taken) => keeping.finish(taken).await,
            Err(problem) => Err(problem),
        };
        // Refused if the client left: what is sent back is then dropped here.
        drop(done.send(result));
    });
    if has_body {
        tokio::select! {
            biased;
            kept = &mut kept => return kept.unwrap_or_else(|_| Err(Problem::internal())),
            () = pump.run(body, allowance) => {}
        }
    }
    kept.await.unwrap_or_else(|_| Err(Problem::internal()))
}

/// The parameter that holds the fields of a form.
const FORM_PARAM: &str = "form";

/// What remains to be done once the body is kept.
pub struct Keeping {
    pub state: GatewayState,
    pub route: Arc<Route>,
    pub envelope: Envelope,
    pub how: How,
    pub key: Option<Key>,
}

/// What is known of the request that a repeat repeats.
enum Known {
    /// This is the first.
    Nothing,
    /// It was begun, and may not have been submitted.
    Begun,
    /// It was kept, and stands so.
    Kept(&'static str),
}

impl Keeping {
    async fn finish(mut self, taken: Taken) -> Result<Kept, Problem> {
        let claims = taken.payload.claims();
        match self.finish_with(taken).await {
            Ok((kept, true)) => Ok(kept),
            // Its bodies are those of the first.
            Ok((kept, false)) => {
                intake::discard(&*self.state.transport, claims).await;
                Ok(kept)
            }
            Err((problem, false)) => {
                intake::discard(&*self.state.transport, claims).await;
                Err(problem)
            }
            Err((problem, true)) => Err(problem),
        }
    }

    /// The kept request, or why it is none; and whether what was stored of the body may be needed.
    async fn finish_with(&mut self, taken: Taken) -> Result<(Kept, bool), (Problem, bool)> {
        let unneeded = |problem| (problem, false);
        if let Some(fields) = taken.fields.clone() {
            self.envelope.params.insert(FORM_PARAM.into(), Value::Object(fields));
        }
        let known = self.attach(&taken).await.map_err(unneeded)?;
        let draft = self.draft(taken.record).map_err(unneeded)?;
        let (request, lane) = (self.envelope.id.clone(), self.envelope.lane);
        if let Known::Kept(status) = known {
            return Ok((Kept { request, status, record: draft.map(|draft| draft.value), leaving: None }, false));
        }
        let written = match draft {
            Some(draft) => Some(draft.write(&self.state).await.map_err(unneeded)?),
            None => None,
        };
        let submission = Submission { envelope: self.envelope.clone(), payload: taken.payload };
        let submitted = match self.state.transport.submit(submission).await {
            Ok(submitted) => submitted,
            Err(error) => {
                // Without an answer the event may be stored: then its claims and record are needed.
                let unknown = matches!(error, TransportError::Unavailable(_));
                if let Some(written) = written.filter(|_| !unknown) {
                    written.take_back(&self.state).await;
                }
                return Err((self.state.refusal(error, lane).await, unknown));
            }
        };
        let leaving = (self.route.spec.cancel_on_disconnect && matches!(known, Known::Nothing))
            .then(|| CancelOnDrop::new(&self.state, &self.route.flow, &request));
        let accepting = note(self.state.clone(), request.clone(), self.route.flow.clone(), self.key.clone());
        if self.how == How::Wait {
            // Whoever waits for the result need not wait for the record of its beginning.
            self.state.tasks.spawn(accepting);
        } else {
            accepting.await;
        }
        let record = written.map(|written| written.value);
        Ok((Kept { request, status: requests::QUEUED, record, leaving }, submitted == Submitted::Stored))
    }

    /// Looks whether this repeats a request; if so, it takes its id.
    async fn attach(&mut self, taken: &Taken) -> Result<Known, Problem> {
        let Some(key) = &self.key else { return Ok(Known::Nothing) };
        let (payload, record, params) = (taken.payload.clone(), taken.record.clone(), self.envelope.params.clone());
        let body = intake::off_runtime(move || idempotency::digest(&payload, record.as_ref(), &params)).await?;
        let transport = &*self.state.transport;
        let Claimed::Again { request: first, kept } = key.claim(transport, &body, &self.envelope.id).await? else {
            return Ok(Known::Nothing);
        };
        let outcomes = transport.outcomes(&first).await?;
        self.envelope.id = first.clone();
        self.envelope.request = Some(first);
        match requests::standing(&outcomes) {
            Some(status) => Ok(Known::Kept(status)),
            // The answer is the record, whatever came of it.
            None if kept && self.route.spec.record.is_some() => Ok(Known::Kept(requests::QUEUED)),
            None if kept => Err(gone()),
            None => Ok(Known::Begun),
        }
    }

    fn draft(&mut self, fields: Option<Map<String, Value>>) -> Result<Option<Draft>, Problem> {
        let (Some(record), Some(fields)) = (&self.route.spec.record, fields) else { return Ok(None) };
        Record::prepare(record, &mut self.envelope, &self.route.spec.body.kind, fields).map(Some)
    }
}

/// 410: a repeat of what has ended, whose results are gone.
fn gone() -> Problem {
    let detail =
        "the request of this Idempotency-Key was kept, but its results are gone: use a new key to have it done again";
    Problem::new(StatusCode::GONE, "result_gone", detail)
}

/// Records that the event is stored, and with its key that this was recorded.
async fn note(state: GatewayState, request: RequestId, flow: FlowName, key: Option<Key>) {
    let accepted = accept(state.clone(), request, flow).await;
    if let Some(key) = key.filter(|_| accepted) {
        // Nobody need wait for this.
        let transport = Arc::clone(&state.transport);
        state.tasks.spawn(async move { key.confirm(&*transport).await });
    }
}

/// Records that the event is stored, as the request's first result; whether that is recorded.
pub async fn accept(state: GatewayState, request: RequestId, flow: FlowName) -> bool {
    let content = Content::json(&json!({ "id": request, "flow": flow, "status": requests::QUEUED }));
    let outcome = Outcome::new(OutcomeKind::Accepted, 0, flow, content);
    if let Err(error) = state.transport.publish_outcome(&request, &outcome).await {
        // The event is stored and will end in a terminal result all the same.
        tracing::warn!(%request, %error, "acceptance not recorded");
        return false;
    }
    true
}
