//! The settler: turns a finished root into one terminal result and one word to the broker, in that order.
//!
//! Order matters. The terminal result is confirmed before the event is acknowledged, so that a crash in between repeats
//! the work and the repeat's result is refused; claims are dropped once the broker has confirmed the acknowledgement, so
//! that no repeat ever misses its payload.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::flow::FlowShared;
use super::root::{Settling, Verdict};
use super::{Response, Root};
use crate::claims;
use crate::fault::Rejection;
use crate::outcome::{Outcome, OutcomeKind};
use crate::payload::{Body, Content};
use crate::transport::{DeadLetter, Published, Settlement, Transport, TransportError};

/// Finished roots looked at in one go.
const AT_ONCE: usize = 256;

/// Settles roots until the flow has no more.
pub async fn run(flow: Arc<FlowShared>, transport: Arc<dyn Transport>, mut finished: mpsc::Receiver<Arc<Root>>) {
    let settler = Settler { flow, transport };
    let mut working = FuturesUnordered::new();
    let mut roots = Vec::with_capacity(AT_ONCE);
    loop {
        tokio::select! {
            count = finished.recv_many(&mut roots, AT_ONCE) => if count == 0 {
                break;
            },
            Some(()) = working.next() => {}
        }
        for root in roots.drain(..) {
            if root.is_plain() {
                settler.settle(root).await;
            } else {
                working.push(settler.settle(root));
            }
        }
    }
    while working.next().await.is_some() {}
}

struct Settler {
    flow: Arc<FlowShared>,
    transport: Arc<dyn Transport>,
}

impl Settler {
    async fn settle(&self, root: Arc<Root>) {
        let Some(Settling { verdict, ack, place }) = root.take_settling() else { return };
        let settlement = match self.conclude(&root, verdict).await {
            Ok(settlement) => settlement,
            Err(error) => {
                tracing::warn!(flow = %self.flow.name, event = %root.envelope.id, %error, "result not stored, will repeat");
                Settlement::Retry(self.flow.retry.pause_after(1))
            }
        };
        let dead = self.flow.count(settlement, &root);
        let has_claims = settlement == Settlement::Done && !dead && !root.payload.claims().is_empty();
        let settlement = if has_claims { Settlement::DoneForSure } else { settlement };
        let confirmed = ack.settle(settlement).await;
        // An acknowledgement that may be lost means a repeat, which needs the body: it then expires by age.
        if has_claims && confirmed {
            self.drop_claims(&root).await;
        }
        // Only now may another event take this one's place.
        drop(place);
    }

    /// Makes every effect of the end visible and says what the broker should do.
    async fn conclude(&self, root: &Root, verdict: Verdict) -> Result<Settlement, TransportError> {
        let rejection = match (verdict.rejection, verdict.retry) {
            (rejection, Some((stage, error))) => {
                let faults = self.flow.faults.add(&root.envelope.id);
                if faults < self.flow.retry.attempts && !root.envelope.expired() {
                    return Ok(Settlement::Retry(self.flow.retry.pause_after(faults)));
                }
                tracing::error!(flow = %self.flow.name, event = %root.envelope.id, %stage, faults, %error, "gave up");
                let gave_up = format!("stage {stage} failed {faults} times; the last cause is in the log");
                rejection.or(Some((stage, Rejection::new(500, "gave_up", gave_up))))
            }
            (rejection, None) => rejection,
        };
        match rejection {
            None => self.publish_done(root, verdict.responses).await?,
            Some((stage, cause)) => self.publish_failed(root, &stage, cause).await?,
        }
        Ok(Settlement::Done)
    }

    async fn publish_done(&self, root: &Root, responses: Vec<Response>) -> Result<(), TransportError> {
        let Some(request) = &root.envelope.request else { return Ok(()) };
        let content = self.within_inline_limit(join(responses)).await?;
        let outcome = self.outcome(root, OutcomeKind::Done, content.clone());
        let published = self.transport.publish_outcome(request, &outcome).await?;
        if published == Published::Refused
            && let Some(claim) = content.claim()
        {
            self.transport.drop_claim(claim).await?;
        }
        Ok(())
    }

    async fn publish_failed(&self, root: &Root, stage: &Arc<str>, cause: Rejection) -> Result<(), TransportError> {
        root.failed.store(true, Ordering::Relaxed);
        if cause.is_ours() || root.envelope.request.is_none() {
            let letter = DeadLetter {
                envelope: (*root.envelope).clone(),
                payload: root.payload.clone(),
                stage: Arc::clone(stage),
                cause: cause.clone(),
            };
            self.transport.dead_letter(letter).await?;
            root.dead.store(true, Ordering::Relaxed);
        }
        let Some(request) = &root.envelope.request else { return Ok(()) };
        let problem = serde_json::to_vec(&cause).map_err(TransportError::unavailable)?;
        let outcome = self.outcome(root, OutcomeKind::Failed, Content::inline("application/json", problem));
        self.transport.publish_outcome(request, &outcome).await?;
        Ok(())
    }

    fn outcome(&self, root: &Root, kind: OutcomeKind, content: Content) -> Outcome {
        let ordinal = root.next_ordinal.load(Ordering::Relaxed);
        Outcome::new(kind, ordinal, self.flow.name.clone(), content)
    }

    async fn within_inline_limit(&self, content: Content) -> Result<Content, TransportError> {
        match content.body {
            Body::Inline(bytes) => claims::keep_bytes(&*self.transport, &content.media_type, bytes).await,
            Body::Claim(_) => Ok(content),
        }
    }

    async fn drop_claims(&self, root: &Root) {
        for claim in root.payload.claims() {
            if let Err(error) = self.transport.drop_claim(&claim).await {
                // It expires by age.
                tracing::warn!(claim = %claim.id, %error, "claim not dropped");
            }
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
