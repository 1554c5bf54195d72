//! The settler: turns a finished root into one terminal result, one entry of the ledger and one word to the broker, in
//! that order.
//!
//! Order matters. The terminal result is confirmed before the end is noted, so that a crash in between repeats the work
//! and the repeat's result is refused. The end is noted, many in one message, before the event is acknowledged, so that a
//! copy that comes later is known. Claims are dropped in between: a repeat is known then and never misses its payload, and
//! a crash leaves none behind.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::flow::FlowShared;
use super::root::{Settling, Verdict};
use super::{Place, Response, Root, follow_up, spans};
use crate::claims;
use crate::completion::Completion;
use crate::fault::Rejection;
use crate::ledger::{End, Entry};
use crate::outcome::{Outcome, OutcomeKind};
use crate::payload::{Body, Content};
use crate::transport::{Acknowledge, BodyOf, DeadLetter, Published, Settlement, Transport, TransportError};

/// Finished roots looked at in one go.
const AT_ONCE: usize = 256;

/// Ends that are many: where one message noted so many, the next one waits for as many, or for [`NOTE_LINGER`].
const MANY: usize = 32;

/// How long ends wait to be noted together while there are many. Nobody waits for it: the results are visible already.
const NOTE_LINGER: Duration = Duration::from_millis(2);

/// Settles roots until the flow has no more.
pub async fn run(flow: Arc<FlowShared>, transport: Arc<dyn Transport>, mut finished: mpsc::Receiver<Arc<Root>>) {
    let settler = Settler { flow, transport };
    let mut concluding = FuturesUnordered::new();
    let mut noting = FuturesUnordered::new();
    let mut releasing = FuturesUnordered::new();
    let mut concluded = Vec::new();
    let mut roots = Vec::with_capacity(AT_ONCE);
    let mut open = true;
    let mut lingers = None;
    loop {
        // One message at a time: what ends meanwhile shares the next one.
        let lingering = lingers.is_some_and(|until| open && concluded.len() < AT_ONCE && Instant::now() < until);
        if noting.is_empty() && !concluded.is_empty() && !lingering {
            lingers = (concluded.len() >= MANY).then(|| Instant::now() + NOTE_LINGER);
            noting.push(settler.note(std::mem::take(&mut concluded)));
        }
        tokio::select! {
            () = tokio::time::sleep_until(lingers.unwrap_or_else(Instant::now)), if lingering => {}
            count = finished.recv_many(&mut roots, AT_ONCE), if open => open = count > 0,
            Some(end) = concluding.next() => concluded.extend(end),
            Some(noted) = noting.next() => for (ended, settlement) in noted {
                releasing.push(settler.release(ended, settlement));
            },
            Some(()) = releasing.next() => {}
            else => return,
        }
        for root in roots.drain(..) {
            if root.is_plain() {
                concluded.extend(Ended::plain(root));
            } else {
                concluding.push(settler.conclude(root));
            }
        }
    }
}

/// A root whose effects are all visible.
struct Ended {
    root: Arc<Root>,
    ack: Box<dyn Acknowledge>,
    /// Freed last of all: only then may another event take this one's place.
    place: Place,
}

impl Ended {
    fn plain(root: Arc<Root>) -> Option<Self> {
        let Settling { ack, place, .. } = root.take_settling()?;
        Some(Self { root, ack, place })
    }
}

/// What comes after the work of a root.
enum Conclusion {
    Ended,
    Again(Settlement),
}

struct Settler {
    flow: Arc<FlowShared>,
    transport: Arc<dyn Transport>,
}

impl Settler {
    /// Makes every effect of the end visible; a root that comes again is handed back here.
    async fn conclude(&self, root: Arc<Root>) -> Option<Ended> {
        let Settling { verdict, ack, place } = root.take_settling()?;
        let ended = Ended { ack, place, root };
        let settlement = match self.end(&ended.root, verdict).await {
            Ok(Conclusion::Ended) => return Some(ended),
            Ok(Conclusion::Again(settlement)) => settlement,
            Err(error) => {
                tracing::warn!(flow = %self.flow.name, event = %ended.root.envelope.id, %error,
                    "result not stored, will repeat");
                self.again(1, "result not stored")
            }
        };
        self.release(ended, settlement).await;
        None
    }

    fn again(&self, faults: u32, reason: &str) -> Settlement {
        Settlement::Retry(self.flow.retry.pause_after(faults), reason.into())
    }

    /// Notes ends in the ledger; where that fails the events come again, and their repeats find their results stored.
    async fn note(&self, ended: Vec<Ended>) -> Vec<(Ended, Settlement)> {
        let entry = |ended: &Ended| {
            let end = if ended.root.dead.load(Ordering::Relaxed) { End::Kept } else { End::Settled };
            Entry::new(&self.flow.name, &ended.root.envelope.id, end)
        };
        let entries: Vec<Entry> = ended.iter().map(entry).collect();
        let noted = self.transport.note_ended(&entries).await;
        let settlement = match noted {
            Ok(()) => {
                self.flow.ledger.note(OffsetDateTime::now_utc(), &entries);
                Settlement::Done
            }
            Err(error) => {
                tracing::warn!(flow = %self.flow.name, events = ended.len(), %error, "ends not noted, events will repeat");
                self.again(1, "end not noted")
            }
        };
        ended.into_iter().map(|ended| (ended, settlement.clone())).collect()
    }

    /// Drops what may go now that the end is noted, and tells the broker. If the process dies in between, the event comes
    /// again and is known by its entry: it needs no body, and nothing is left behind.
    async fn release(&self, ended: Ended, settlement: Settlement) {
        let Ended { root, ack, place } = ended;
        let dead = self.flow.count(&settlement, &root);
        if let Some(spans) = &self.flow.spans {
            spans::hand_over(&**spans, &self.flow, &root, &settlement);
        }
        if settlement == Settlement::Done && !dead {
            claims::drop_all(&*self.transport, &root.payload).await;
        }
        ack.settle(settlement).await;
        drop(place);
    }

    async fn end(&self, root: &Root, verdict: Verdict) -> Result<Conclusion, TransportError> {
        let mut fault = None;
        let rejection = match (verdict.rejection, verdict.retry) {
            (rejection, Some((stage, error))) => {
                let faults = self.flow.faults.add(&root.envelope.id);
                if faults < self.flow.retry.attempts && !root.envelope.expired() {
                    return Ok(Conclusion::Again(self.again(faults, &format!("stage {stage} failed"))));
                }
                tracing::error!(flow = %self.flow.name, event = %root.envelope.id, %stage, faults, %error, "gave up");
                fault = Some((faults, error.to_string().into()));
                let gave_up = format!("stage {stage} failed {faults} times; its dead letter has the last cause");
                rejection.or(Some((stage, Rejection::new(500, "gave_up", gave_up))))
            }
            (rejection, None) => rejection,
        };
        match rejection {
            // The flow's next part answers.
            None if root.handed_on.load(Ordering::Relaxed) => {}
            None => self.publish_done(root, verdict.responses).await?,
            Some((stage, cause)) => self.publish_failed(root, &stage, cause, fault).await?,
        }
        Ok(Conclusion::Ended)
    }

    async fn publish_done(&self, root: &Root, responses: Vec<Response>) -> Result<(), TransportError> {
        let Some(request) = &root.envelope.request else { return Ok(()) };
        let content = self.within_inline_limit(join(responses)).await?;
        follow_up::submit(&self.flow, &*self.transport, root, Completion::Done(&content)).await?;
        let outcome = self.outcome(root, OutcomeKind::Done, content.clone());
        let published = self.transport.publish_outcome(request, &outcome).await?;
        if published == Published::Refused {
            self.flow.meter.refused.fetch_add(1, Ordering::Relaxed);
            if let Some(claim) = content.claim() {
                self.transport.drop_claim(claim).await?;
            }
        }
        Ok(())
    }

    async fn publish_failed(
        &self,
        root: &Root,
        stage: &Arc<str>,
        cause: Rejection,
        fault: Option<(u32, Arc<str>)>,
    ) -> Result<(), TransportError> {
        root.failed.store(true, Ordering::Relaxed);
        let is_kept = cause.is_ours() || root.envelope.request.is_none();
        if is_kept && !self.is_done_elsewhere(root).await? {
            let (faults, error) = fault.map_or((0, None), |(faults, error)| (faults, Some(error)));
            let letter = DeadLetter {
                envelope: (*root.envelope).clone(),
                payload: root.payload.clone(),
                stage: Arc::clone(stage),
                faults,
                cause: cause.clone(),
                error,
            };
            self.transport.dead_letter(letter).await?;
            root.dead.store(true, Ordering::Relaxed);
        }
        let Some(request) = &root.envelope.request else { return Ok(()) };
        follow_up::submit(&self.flow, &*self.transport, root, Completion::Failed(&cause)).await?;
        let problem = serde_json::to_vec(&cause).map_err(TransportError::unavailable)?;
        let outcome = self.outcome(root, OutcomeKind::Failed, Content::inline("application/json", problem));
        if self.transport.publish_outcome(request, &outcome).await? == Published::Refused {
            self.flow.meter.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether somebody else has done the event while this process stood still. What failed here then says nothing: its
    /// body may be gone because nobody needs it any more.
    async fn is_done_elsewhere(&self, root: &Root) -> Result<bool, TransportError> {
        if self.flow.ledger.look_up(&self.flow.name, &root.envelope.id) == Some(End::Settled) {
            return Ok(true);
        }
        let Some(request) = &root.envelope.request else { return Ok(false) };
        let outcomes = self.transport.outcomes(request).await?;
        Ok(outcomes.iter().any(|outcome| outcome.kind == OutcomeKind::Done))
    }

    fn outcome(&self, root: &Root, kind: OutcomeKind, content: Content) -> Outcome {
        let ordinal = root.next_ordinal.load(Ordering::Relaxed);
        let worked = root.worked().into_iter().map(|worked| (Arc::clone(&worked.stage), worked.took())).collect();
        Outcome { worked, ..Outcome::new(kind, ordinal, self.flow.answers_for.clone(), content) }
    }

    async fn within_inline_limit(&self, content: Content) -> Result<Content, TransportError> {
        match content.body {
            Body::Inline(bytes) => {
                claims::keep_bytes(&*self.transport, BodyOf::Result, &content.media_type, bytes).await
            }
            Body::Claim(_) => Ok(content),
        }
    }
}

/// One answer is the result itself, several are a JSON list in the order of the parts, none is `{}`.
fn join(mut responses: Vec<Response>) -> Content {
    if responses.len() == 1 {
        return responses.remove(0).content;
    }
    if responses.is_empty() {
        return Content::json(&serde_json::json!({}));
    }
    responses.sort_by_key(|response| response.order);
    let parsed = responses.iter().map(|response| match &response.content.body {
        Body::Inline(bytes) => serde_json::from_slice(bytes).unwrap_or(serde_json::Value::Null),
        Body::Claim(_) => serde_json::Value::Null,
    });
    Content::json(&parsed.collect())
}
