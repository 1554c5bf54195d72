//! Submits a request: reads its body, writes its record and hands its event to the broker, in a task that continues if
//! the client disconnects.
//!
//! The record of a report is written before its event, so that a client that knows the id finds it. An event that is
//! refused takes its record back and leaves no body in the store. If the broker does not answer, the event may be
//! stored: then record and bodies stay.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use pipeline::{Envelope, Payload, RequestId, Submission, SubmitAck, TransportError};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::body::channel::{self, UploadLimits};
use super::body::head::BodyHead;
use super::body::received::ReceivedBody;
use super::body::{read, store};
use super::idempotency::{IdempotencyKey, KeyOwner};
use super::preferences::AnswerMode;
use super::record::{RecordDraft, WrittenRecord};
use super::request_digest;
use super::route::Route;
use super::{acceptance, admission, blocking};
use crate::answer::cancel::CancelOnDrop;
use crate::answer::status::{self, QUEUED};
use crate::problem::Problem;
use crate::spec::BodyKind;
use crate::state::GatewayState;

/// The event parameter that holds the fields of a form.
const FORM_PARAM: &str = "form";

/// A request whose headers were accepted.
pub struct NewRequest {
    pub state: GatewayState,
    pub route: Arc<Route>,
    pub envelope: Envelope,
    pub mode: AnswerMode,
    pub key: Option<IdempotencyKey>,
}

/// A request that the broker has stored.
pub struct StoredRequest {
    /// Its id; for a repeat, that of the first request.
    pub id: RequestId,
    pub status: &'static str,
    /// The record that it wrote, if its route writes one.
    pub record: Option<Bytes>,
    /// Cancels the request if it is dropped before the client has its answer; only if the route says so.
    pub on_disconnect: Option<CancelOnDrop>,
    /// Names of a form's parts that were not used.
    pub ignored_parts: Vec<String>,
}

/// The request that a repeat repeats.
enum EarlierRequest {
    /// There is none: this is the first.
    None,
    /// It was begun and may not have been submitted.
    Begun,
    /// It was stored and has this status.
    Stored(&'static str),
}

/// What remains to be done for a request whose body is read.
enum NextStep {
    /// Submit its event.
    Submit { record: Option<WrittenRecord>, is_first: bool },
    /// Nothing: it repeats a stored request.
    Answer(StoredRequest),
}

/// Whether the stored bodies of a request may belong to an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bodies {
    Needed,
    Unneeded,
}

/// Reads the body and submits the event. The task that does it continues if this future is dropped.
pub async fn submit(new: NewRequest, head: BodyHead, body: Body) -> Result<StoredRequest, Problem> {
    let limits = UploadLimits::new(&new.state.limits, head.length, head.max_bytes);
    let (sender, receiver) = channel::channel();
    let (done, mut stored) = oneshot::channel();
    let (tasks, has_body) = (new.state.tasks.clone(), new.route.spec.body.kind != BodyKind::None);
    tasks.spawn(async move {
        let route = &new.route;
        let received = read::read(&new.state, &route.flow, &route.spec.body, head, receiver).await;
        let result = match received {
            Ok(received) => new.finish(received).await,
            Err(problem) => Err(problem),
        };
        // If the client has disconnected, the result comes back and is dropped here.
        drop(done.send(result));
    });
    if has_body {
        tokio::select! {
            biased;
            stored = &mut stored => return stored.unwrap_or_else(|_| Err(Problem::internal())),
            () = sender.send_all(body, limits) => {}
        }
    }
    stored.await.unwrap_or_else(|_| Err(Problem::internal()))
}

impl NewRequest {
    async fn finish(mut self, mut received: ReceivedBody) -> Result<StoredRequest, Problem> {
        let claims = received.payload.claims();
        let ignored_parts = std::mem::take(&mut received.ignored_parts);
        let (result, bodies) = match self.prepare(&mut received).await {
            Ok(NextStep::Submit { record, is_first }) => self.submit_event(received.payload, record, is_first).await,
            Ok(NextStep::Answer(stored)) => (Ok(stored), Bodies::Unneeded),
            Err(problem) => (Err(problem), Bodies::Unneeded),
        };
        if bodies == Bodies::Unneeded {
            store::discard(&*self.state.transport, claims).await;
        }
        result.map(|stored| StoredRequest { ignored_parts, ..stored })
    }

    /// Attaches to an earlier request if this repeats one, and writes the record.
    async fn prepare(&mut self, received: &mut ReceivedBody) -> Result<NextStep, Problem> {
        if let Some(fields) = received.fields.take() {
            self.envelope.params.insert(FORM_PARAM.into(), Value::Object(fields));
        }
        let earlier = self.attach(received).await?;
        let draft = self.draft(received.record.take())?;
        if let EarlierRequest::Stored(status) = earlier {
            let (id, record) = (self.envelope.id.clone(), draft.map(|draft| draft.value));
            return Ok(NextStep::Answer(StoredRequest {
                id,
                status,
                record,
                on_disconnect: None,
                ignored_parts: Vec::new(),
            }));
        }
        let record = match draft {
            Some(draft) => Some(draft.write(&*self.state.transport).await?),
            None => None,
        };
        Ok(NextStep::Submit { record, is_first: matches!(earlier, EarlierRequest::None) })
    }

    async fn submit_event(
        &self,
        payload: Payload,
        record: Option<WrittenRecord>,
        is_first: bool,
    ) -> (Result<StoredRequest, Problem>, Bodies) {
        let (state, route, id) = (&self.state, &self.route, self.envelope.id.clone());
        let submission = Submission { envelope: self.envelope.clone(), payload };
        let submitted = match state.transport.submit(submission).await {
            Ok(submitted) => submitted,
            // Without an answer the event may be stored: it needs its bodies and its record.
            Err(error @ TransportError::Unavailable(_)) => {
                return (Err(admission::refusal(state, error, self.envelope.lane)), Bodies::Needed);
            }
            Err(error) => {
                if let Some(record) = record {
                    record.take_back(&*state.transport).await;
                }
                return (Err(admission::refusal(state, error, self.envelope.lane)), Bodies::Unneeded);
            }
        };
        // Of an event that the broker knew already, the bodies are those of the first submission.
        let bodies = if submitted == SubmitAck::Stored { Bodies::Needed } else { Bodies::Unneeded };
        let acceptance = record_acceptance(state.clone(), id.clone(), Arc::clone(route), self.key.clone());
        if self.mode == AnswerMode::Wait {
            // A client that waits for the result need not wait until its acceptance is recorded.
            state.tasks.spawn(acceptance);
        } else if let Err(problem) = acceptance.await {
            return (Err(problem), bodies);
        }
        let cancels = route.spec.cancel_on_disconnect && is_first;
        let on_disconnect = cancels.then(|| CancelOnDrop::new(state, &route.flow, &id));
        let record = record.map(|record| record.value);
        (Ok(StoredRequest { id, status: QUEUED, record, on_disconnect, ignored_parts: Vec::new() }), bodies)
    }

    /// Claims the idempotency key. If it belongs to an earlier request, takes that request's id.
    async fn attach(&mut self, received: &ReceivedBody) -> Result<EarlierRequest, Problem> {
        let Some(key) = &self.key else { return Ok(EarlierRequest::None) };
        let (payload, record) = (received.payload.clone(), received.record.clone());
        let params = self.envelope.params.clone();
        let digest = blocking::run(move || request_digest::digest(&payload, record.as_ref(), &params)).await?;
        let transport = &*self.state.transport;
        let owner = key.claim(transport, &digest, &self.envelope.id).await?;
        let KeyOwner::EarlierRequest { request: first, stored } = owner else { return Ok(EarlierRequest::None) };
        let outcomes = transport.outcomes(&first).await?;
        self.envelope.id = first.clone();
        self.envelope.request = Some(first);
        match status::current(&outcomes) {
            Some(status) => Ok(EarlierRequest::Stored(status)),
            // The answer is the record, whatever the status.
            None if stored && self.route.spec.record.is_some() => Ok(EarlierRequest::Stored(QUEUED)),
            None if stored => Err(results_expired()),
            None => Ok(EarlierRequest::Begun),
        }
    }

    fn draft(&mut self, fields: Option<Map<String, Value>>) -> Result<Option<RecordDraft>, Problem> {
        let (Some(record), Some(fields)) = (&self.route.spec.record, fields) else { return Ok(None) };
        RecordDraft::new(record, &mut self.envelope, &self.route.spec.body.kind, fields).map(Some)
    }
}

/// 410: a repeat of a request that has ended, and whose results are gone.
fn results_expired() -> Problem {
    let detail = "the request of this Idempotency-Key was stored, but its results are gone: use a new key to repeat it";
    Problem::new(StatusCode::GONE, "result_gone", detail)
}

/// Records that the event is stored, and then, with its key, that the request is.
async fn record_acceptance(
    state: GatewayState,
    id: RequestId,
    route: Arc<Route>,
    key: Option<IdempotencyKey>,
) -> Result<(), Problem> {
    acceptance::record(&*state.transport, &id, &route.flow).await?;
    if let Some(key) = key {
        // The client need not wait for this.
        let transport = Arc::clone(&state.transport);
        state.tasks.spawn(async move { key.confirm(&*transport).await });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
