//! The settler: turns a finished root into one terminal result, one entry of the ledger and one acknowledgement, in that
//! order.
//!
//! Order matters. The terminal result is confirmed before the ledger entry, so that a crash in between repeats the work
//! and the repeat's result is refused. The entry is stored, many in one message, before the event is acknowledged, so that
//! a later copy is recognised. Claims are dropped in between: by then a repeat is recognised and never misses its payload,
//! and a crash leaves none behind.
//!
//! What the broker refuses to store waits here (see [`StorageOutage`](crate::storage_outage::StorageOutage)): the root keeps
//! its place, and nothing counts as a fault.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::flow_shared::FlowShared;
use super::{follow_up, joined_answers, spans};
use crate::claims;
use crate::completion::Completion;
use crate::event::{Place, Response, Root, Unsettled, Verdict};
use crate::fault::Rejection;
use crate::ledger::{End, Entry};
use crate::names::RequestId;
use crate::outcome::{Outcome, OutcomeKind};
use crate::payload::Content;
use crate::transport::{Acknowledge, DeadLetter, ResultAck, Settlement, Transport, TransportError};

/// Finished roots taken at once.
const AT_ONCE: usize = 256;

/// Under load, the next message waits for more entries: after a message with so many, for up to [`LEDGER_LINGER`].
const UNDER_LOAD: usize = 32;

/// How long entries wait to share a message under load. It delays no client: the results are visible already.
const LEDGER_LINGER: Duration = Duration::from_millis(2);

/// Settles roots until all senders are gone and every root is settled. Roots are settled concurrently, in no order.
pub async fn run(flow: Arc<FlowShared>, transport: Arc<dyn Transport>, mut finished: mpsc::Receiver<Arc<Root>>) {
    let settler = Settler { flow, transport };
    // The way of a root: its result is published, it is ready for the ledger, recorded there, released.
    let mut publishing = FuturesUnordered::new();
    let mut ready = Vec::new();
    let mut recording = FuturesUnordered::new();
    let mut releasing = FuturesUnordered::new();
    let mut roots = Vec::with_capacity(AT_ONCE);
    let mut open = true;
    let mut lingers = None;
    loop {
        // One message at a time: roots that become ready meanwhile share the next one.
        let lingering = lingers.is_some_and(|until| open && ready.len() < AT_ONCE && Instant::now() < until);
        if recording.is_empty() && !ready.is_empty() && !lingering {
            lingers = (ready.len() >= UNDER_LOAD).then(|| Instant::now() + LEDGER_LINGER);
            recording.push(settler.record(std::mem::take(&mut ready)));
        }
        tokio::select! {
            () = tokio::time::sleep_until(lingers.unwrap_or_else(Instant::now)), if lingering => {}
            count = finished.recv_many(&mut roots, AT_ONCE), if open => open = count > 0,
            Some(root) = publishing.next() => ready.extend(root),
            Some(recorded) = recording.next() => for (root, settlement) in recorded {
                releasing.push(settler.release(root, settlement));
            },
            Some(()) = releasing.next() => {}
            else => return,
        }
        for root in roots.drain(..) {
            if root.is_plain() {
                ready.extend(FinishedRoot::plain(root));
            } else {
                publishing.push(settler.publish(root));
            }
        }
    }
}

/// A root whose effects are all visible, before its end is in the ledger.
struct FinishedRoot {
    root: Arc<Root>,
    ack: Box<dyn Acknowledge>,
    /// Freed last of all: only then may another event take this one's place.
    place: Place,
}

impl FinishedRoot {
    /// A root that has no result to publish.
    fn plain(root: Arc<Root>) -> Option<Self> {
        let Unsettled { ack, place, .. } = root.take_unsettled()?;
        Some(Self { root, ack, place })
    }
}

/// What follows from the verdict on a root.
enum Conclusion {
    /// It has ended; every effect of that is visible.
    End,
    /// It is handed back to the broker for another attempt.
    Retry(Settlement),
}

struct Settler {
    flow: Arc<FlowShared>,
    transport: Arc<dyn Transport>,
}

impl Settler {
    /// Makes every effect of the end visible. A root that needs another attempt is handed back here, and not returned.
    async fn publish(&self, root: Arc<Root>) -> Option<FinishedRoot> {
        let Unsettled { verdict, ack, place } = root.take_unsettled()?;
        let finished = FinishedRoot { ack, place, root };
        let concluded = match self.conclude(&finished.root, verdict).await {
            Err(error) if !error.will_pass() => self.conclude_unstorable(&finished.root, error).await,
            concluded => concluded,
        };
        let settlement = match concluded {
            Ok(Conclusion::End) => return Some(finished),
            Ok(Conclusion::Retry(settlement)) => settlement,
            // The flow has ended.
            Err(_) => self.retry(1, "result not stored"),
        };
        self.release(finished, settlement).await;
        None
    }

    fn retry(&self, faults: u32, reason: &str) -> Settlement {
        Settlement::Retry(self.flow.retry.pause_after(faults), reason.into())
    }

    /// Stores ends in the ledger, for as long as that takes. If the flow ends before, the events are redelivered, and their
    /// repeats find their results stored.
    async fn record(&self, finished: Vec<FinishedRoot>) -> Vec<(FinishedRoot, Settlement)> {
        let entry = |finished: &FinishedRoot| {
            let end = if finished.root.dead.load(Ordering::Relaxed) { End::DeadLettered } else { End::Settled };
            Entry::new(&self.flow.name, &finished.root.envelope.id, end)
        };
        let entries: Vec<Entry> = finished.iter().map(entry).collect();
        let settlement = match self.store(entries.len(), || self.transport.note_ended(&entries)).await {
            Ok(()) => {
                self.flow.ledger.note(OffsetDateTime::now_utc(), &entries);
                Settlement::Done
            }
            Err(error) => {
                tracing::warn!(flow = %self.flow.name, events = finished.len(), %error, "ends not noted, events will repeat");
                self.retry(1, "end not noted")
            }
        };
        finished.into_iter().map(|root| (root, settlement.clone())).collect()
    }

    /// Withdraws the note about a suspect, counts the end, drops claims that are no longer needed, acknowledges the event,
    /// then frees its place.
    ///
    /// If the process dies between dropping and acknowledging, the event is redelivered and recognised by its entry: it
    /// needs no body, and no claim is orphaned.
    async fn release(&self, finished: FinishedRoot, settlement: Settlement) {
        let FinishedRoot { root, ack, place } = finished;
        if place.is_alone() {
            self.withdraw_note(&root).await;
        }
        let dead = self.flow.count(&settlement, &root);
        if let Some(spans) = &self.flow.spans {
            spans::export(&**spans, &self.flow, &root, &settlement);
        }
        if settlement == Settlement::Done && !dead {
            claims::drop_all(&*self.transport, &root.payload).await;
        }
        ack.settle(settlement).await;
        drop(place);
    }

    /// Withdrawn before the event is acknowledged: if this process ends afterwards, that is no death.
    async fn withdraw_note(&self, root: &Root) {
        if let Err(error) = self.store(1, || self.flow.withdraw_note(&*self.transport)).await {
            let event = &root.envelope.id;
            tracing::warn!(flow = %self.flow.name, %event, %error, "the note about a suspect was not withdrawn");
        }
    }

    /// Repeats a write of so many events until it is stored; fails only if that is hopeless or the flow has ended.
    async fn store<T, W>(&self, events: usize, write: impl Fn() -> W) -> Result<T, TransportError>
    where
        W: Future<Output = Result<T, TransportError>>,
    {
        self.flow.storage.wait_out(events, write).await
    }

    /// Decides between another attempt and the end, and publishes the end.
    async fn conclude(&self, root: &Root, verdict: Verdict) -> Result<Conclusion, TransportError> {
        if let (None, Some(why)) = (&verdict.retry, &verdict.handed_back) {
            return Ok(Conclusion::Retry(self.retry(1, why)));
        }
        let mut fault = None;
        let rejection = match (verdict.rejection, verdict.retry) {
            (rejection, Some((stage, error))) => {
                let faults = self.flow.faults.add(&root.envelope.id);
                if faults < self.flow.retry.attempts && !root.envelope.expired() {
                    return Ok(Conclusion::Retry(self.retry(faults, &format!("stage {stage} failed"))));
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
            None if root.is_handed_on() => {}
            None => self.publish_done(root, verdict.responses).await?,
            Some((stage, cause)) => self.publish_failed(root, &stage, cause, fault).await?,
        }
        Ok(Conclusion::End)
    }

    /// A result that cannot be stored as it is, now or later: that is a fault of the event.
    async fn conclude_unstorable(&self, root: &Root, error: TransportError) -> Result<Conclusion, TransportError> {
        let faults = self.flow.faults.add(&root.envelope.id);
        tracing::warn!(flow = %self.flow.name, event = %root.envelope.id, faults, %error, "the result cannot be stored");
        if faults < self.flow.retry.attempts {
            return Ok(Conclusion::Retry(self.retry(faults, "result not stored")));
        }
        let cause =
            Rejection::new(500, "result_refused", "the broker refuses the result; its dead letter has the cause");
        self.publish_failed(root, &"settle".into(), cause, Some((faults, error.to_string().into()))).await?;
        Ok(Conclusion::End)
    }

    async fn publish_done(&self, root: &Root, responses: Vec<Response>) -> Result<(), TransportError> {
        let Some(request) = &root.envelope.request else { return Ok(()) };
        let content = self.store(1, || joined_answers::join(&*self.transport, &responses)).await?;
        self.submit_follow_up(root, Completion::Done(&content)).await?;
        let outcome = self.outcome(root, OutcomeKind::Done, content);
        let published = self.publish_outcome(request, &outcome).await?;
        if let Some(claim) = outcome.content.claim().filter(|_| published == ResultAck::Refused) {
            self.store(1, || self.transport.drop_claim(claim)).await?;
        }
        Ok(())
    }

    async fn submit_follow_up(&self, root: &Root, completion: Completion<'_>) -> Result<(), TransportError> {
        match follow_up::event(&self.flow, root, completion) {
            Some(event) => follow_up::submit(&self.flow.storage, &*self.transport, event).await,
            None => Ok(()),
        }
    }

    /// Stores the terminal result; counts it if the request has another one.
    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck, TransportError> {
        let published = self.store(1, || self.transport.publish_outcome(request, outcome)).await?;
        // An earlier try of this very result may be stored although its confirmation was lost.
        let is_ours = |stored: &Outcome| (stored.kind, stored.time) == (outcome.kind, outcome.time);
        if published == ResultAck::Refused {
            let stored = self.store(1, || self.transport.outcomes(request)).await?;
            if stored.iter().any(is_ours) {
                return Ok(ResultAck::Stored);
            }
            self.flow.metrics.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(published)
    }

    async fn publish_failed(
        &self,
        root: &Root,
        stage: &Arc<str>,
        cause: Rejection,
        fault: Option<(u32, Arc<str>)>,
    ) -> Result<(), TransportError> {
        root.failed.store(true, Ordering::Relaxed);
        let is_awaited = self.flow.is_awaited && root.envelope.request.is_some() || root.is_cancelled();
        let is_dead_lettered = cause.is_ours() || !is_awaited;
        if is_dead_lettered && !self.is_done_elsewhere(root).await? {
            let (faults, error) = fault.map_or((0, None), |(faults, error)| (faults, Some(error)));
            let letter = DeadLetter {
                envelope: (*root.envelope).clone(),
                payload: root.payload.clone(),
                stage: Arc::clone(stage),
                faults,
                cause: cause.clone(),
                error,
            };
            self.store(1, || self.transport.dead_letter(letter.clone())).await?;
            root.dead.store(true, Ordering::Relaxed);
        }
        let Some(request) = &root.envelope.request else { return Ok(()) };
        self.submit_follow_up(root, Completion::Failed(&cause)).await?;
        let problem = serde_json::to_vec(&cause).map_err(TransportError::unavailable)?;
        let outcome = self.outcome(root, OutcomeKind::Failed, Content::inline("application/json", problem));
        self.publish_outcome(request, &outcome).await?;
        Ok(())
    }

    /// Whether another process has done the event while this one stood still. A failure here then means nothing: the body
    /// may be gone because the event has ended.
    async fn is_done_elsewhere(&self, root: &Root) -> Result<bool, TransportError> {
        if self.flow.ledger.look_up(&self.flow.name, &root.envelope.id) == Some(End::Settled) {
            return Ok(true);
        }
        let Some(request) = &root.envelope.request else { return Ok(false) };
        let outcomes = self.store(1, || self.transport.outcomes(request)).await?;
        Ok(outcomes.iter().any(|outcome| outcome.kind == OutcomeKind::Done))
    }

    fn outcome(&self, root: &Root, kind: OutcomeKind, content: Content) -> Outcome {
        let ordinal = root.next_ordinal.load(Ordering::Relaxed);
        let timings = root.stage_timings();
        let stage_times = timings.iter().map(|timing| (Arc::clone(&timing.stage), timing.took())).collect();
        Outcome { stage_times, ..Outcome::new(kind, ordinal, self.flow.answers_for.clone(), content) }
    }
}

#[cfg(test)]
mod tests;
