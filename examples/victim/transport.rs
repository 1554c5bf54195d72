//! Wraps the transport: a kill point after every call to the broker, and the planted bugs that concern it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use pipeline::testing::TransportWrapper;
use pipeline::{
    Acknowledge, BodyOwner, BoxError, Claim, DeadLetter, Delivery, Entry, FlowName, Lane, LedgerUpdate, Outcome,
    OutcomeKind, RequestId, ResultAck, Settlement, Source, SourceBounds, Submission, SubmitAck, Transport,
    TransportError,
};
use tokio::sync::mpsc;

use crate::faults::{self, Bug, pass};
use crate::unfenced_results::UnfencedResults;

type Result<T> = std::result::Result<T, TransportError>;

/// With the file `late-acceptance` the gateway's first result is stored so late that a worker's last one overtakes it.
const LATE: Duration = Duration::from_millis(30);
/// Interval between two looks for the file `hold`, which keeps deliveries from the engine while it exists.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Kill points of calls that do not concern one flow.
const ANY: &str = "*";

/// Wraps a transport.
pub fn wrap(within: Arc<dyn Transport>) -> Arc<dyn Transport> {
    Arc::new(Faulty { within, unfenced: UnfencedResults::default() })
}

struct Faulty {
    within: Arc<dyn Transport>,
    unfenced: UnfencedResults,
}

#[async_trait]
impl TransportWrapper for Faulty {
    fn within(&self) -> &dyn Transport {
        &*self.within
    }

    async fn submit(&self, submission: Submission) -> Result<SubmitAck> {
        let flow = submission.envelope.flow.clone();
        let submitted = self.within.submit(submission).await?;
        pass("submitted", flow.as_str());
        Ok(submitted)
    }

    async fn source(&self, flow: &FlowName, lane: Lane, bounds: SourceBounds) -> Result<Box<dyn Source>> {
        let within = self.within.source(flow, lane, bounds).await?;
        Ok(Box::new(FaultySource { within, flow: flow.clone() }))
    }

    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck> {
        let terminal = outcome.kind.is_terminal();
        if outcome.kind == OutcomeKind::Accepted && faults::is_set("late-acceptance") {
            tokio::time::sleep(LATE).await;
        }
        let published = match terminal && faults::has(Bug::NoFence) {
            true => self.unfenced.publish(request, outcome).await?,
            false => self.within.publish_outcome(request, outcome).await.map_err(judge)?,
        };
        if terminal && faults::has(Bug::Spurious) {
            self.within.publish_outcome(&RequestId::random(), outcome).await?;
        }
        if terminal {
            pass("outcome", outcome.flow.as_str());
        }
        Ok(published)
    }

    async fn put_claim(
        &self,
        of: BodyOwner<'_>,
        body: BoxStream<'_, std::result::Result<Bytes, BoxError>>,
    ) -> Result<Claim> {
        let claim = self.within.put_claim(of, body).await?;
        pass("claimed", ANY);
        Ok(claim)
    }

    async fn drop_claim(&self, claim: &Claim) -> Result<()> {
        self.within.drop_claim(claim).await?;
        pass("dropped", ANY);
        Ok(())
    }

    async fn dead_letter(&self, letter: DeadLetter) -> Result<()> {
        let flow = letter.envelope.flow.clone();
        self.within.dead_letter(letter).await?;
        pass("dead-lettered", flow.as_str());
        Ok(())
    }

    async fn note_ended(&self, entries: &[Entry]) -> Result<()> {
        if faults::has(Bug::NoLedger) {
            return Ok(());
        }
        self.within.note_ended(entries).await?;
        pass("noted", ANY);
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        match self.within.ready().await {
            // Only a silent canary is left as a reason.
            Err(error) if faults::has(Bug::CanaryOnly) && names_streams(&error) => Ok(()),
            ready => ready,
        }
    }

    async fn ended(&self) -> Result<mpsc::Receiver<LedgerUpdate>> {
        if !faults::has(Bug::NoLedger) {
            return self.within.ended().await;
        }
        let (news, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let _ = news.send(LedgerUpdate::CaughtUp).await;
            // Keeps the channel open without sending anything more.
            news.closed().await;
        });
        Ok(receiver)
    }
}

/// Whether the error names streams that refuse writes.
fn names_streams(error: &TransportError) -> bool {
    matches!(error, TransportError::Unavailable(why) if why.to_string().contains("refuse every write"))
}

/// A refusal as the planted bug sees it.
fn judge(refusal: TransportError) -> TransportError {
    match refusal {
        TransportError::Unavailable(why) if faults::has(Bug::RefusalIsAFault) => TransportError::Body(why),
        refusal => refusal,
    }
}

struct FaultySource {
    within: Box<dyn Source>,
    flow: FlowName,
}

#[async_trait]
impl Source for FaultySource {
    async fn next(&mut self) -> Option<Delivery> {
        let Delivery { envelope, payload, ack } = self.within.next().await?;
        while faults::is_set("hold") {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        pass("fetched", self.flow.as_str());
        let within = match faults::has(Bug::AckEarly) {
            true => {
                ack.settle(Settlement::DoneConfirmed).await;
                None
            }
            false => Some(ack),
        };
        let ack = Box::new(FaultyAck { within, flow: self.flow.clone() });
        Some(Delivery { envelope, payload, ack })
    }
}

struct FaultyAck {
    /// `None` if the event is already acknowledged (bug `ack-early`).
    within: Option<Box<dyn Acknowledge>>,
    flow: FlowName,
}

#[async_trait]
impl Acknowledge for FaultyAck {
    async fn settle(self: Box<Self>, settlement: Settlement) -> bool {
        let confirmed = match self.within {
            Some(within) => within.settle(settlement).await,
            None => true,
        };
        pass("acknowledged", self.flow.as_str());
        confirmed
    }
}
