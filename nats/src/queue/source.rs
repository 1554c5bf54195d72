//! The pull of a lane as the engine sees it: decoded events, and what cannot be worked on put aside.

use std::sync::Arc;

use async_trait::async_trait;
use pipeline::{
    Acknowledge, DeadLetter, Delivery, Envelope, FlowName, Lane, Payload, Rejection, Settlement, Source, SourceBounds,
    TransportError,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::codec::{self, Arrival, Seen};
use crate::dead;
use crate::delivery::Position;
use crate::held::{Held, Hold};
use crate::jetstream::{Flow, Inner};
use crate::pump::{Leftover, Pump, Raw};
use crate::results;
use crate::topology::{self, LaneCut, PARTITIONS};

/// What dead letters name as their stage when no stage saw the event.
const INTAKE: &str = "intake";

/// Opens the pull of a lane.
pub async fn open(
    inner: &Arc<Inner>,
    flow: &FlowName,
    lane: Lane,
    bounds: SourceBounds,
) -> Result<Box<dyn Source>, TransportError> {
    let flow = inner.flow(flow)?;
    let bounds = SourceBounds { events: bounds.events.max(1), ..bounds };
    let (feed, deliveries) = mpsc::channel(2 * bounds.events + 1);
    let (closed, leftover) = (CancellationToken::new(), Arc::<Leftover>::default());
    for (cut, bounds) in cuts(lane, bounds) {
        topology::ensure_consumer(&inner.work.context, &flow.declared, &cut, bounds.ack_wait)
            .await
            .map_err(TransportError::Unavailable)?;
        let held = Held::new(inner.work.client());
        let pump = Pump { inner: Arc::clone(inner), flow: Arc::clone(&flow), cut, bounds, held, feed: feed.clone() };
        inner.tasks.spawn(pump.run(closed.clone(), Arc::clone(&leftover)));
    }
    let inner = Arc::clone(inner);
    let deliveries = Some(deliveries);
    Ok(Box::new(LaneSource { inner, flow, lane, bounds, deliveries, seen: Seen::default(), closed, leftover }))
}

/// The consumers of a lane, each with its part of the bounds: one, or one for each partition.
fn cuts(lane: Lane, bounds: SourceBounds) -> Vec<(LaneCut, SourceBounds)> {
    if !bounds.ordered {
        return vec![(LaneCut { lane, partition: None }, bounds)];
    }
    let part = SourceBounds { events: 1, ..bounds };
    (0..PARTITIONS).map(|number| (LaneCut { lane, partition: Some(number) }, part)).collect()
}

struct LaneSource {
    inner: Arc<Inner>,
    flow: Arc<Flow>,
    lane: Lane,
    bounds: SourceBounds,
    /// Events that arrived; always there until the source is dropped.
    deliveries: Option<mpsc::Receiver<Raw>>,
    seen: Seen,
    closed: CancellationToken,
    leftover: Arc<Leftover>,
}

#[async_trait]
impl Source for LaneSource {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let raw = self.deliveries.as_mut()?.recv().await?;
            let (decoded, attempt) = self.decode(&raw);
            match decoded {
                Ok((envelope, payload)) if attempt <= self.bounds.max_deliver => {
                    let ack = Box::new(Ack { hold: raw.hold });
                    return Some(Delivery { envelope, payload, ack });
                }
                // Dropped half-way, the hold hands the event back, and it is put aside the next time.
                Ok((envelope, payload)) => self.give_up(raw.hold, envelope, payload).await,
                Err(cause) => self.put_aside(raw, cause).await,
            }
        }
    }
}

impl Drop for LaneSource {
    fn drop(&mut self) {
        // The last pump to stop hands them back.
        self.leftover.leave(self.deliveries.take());
        self.closed.cancel();
    }
}

impl LaneSource {
    fn decode(&mut self, raw: &Raw) -> (Result<(Envelope, Payload), Rejection>, u32) {
        let position = raw.message.reply.as_ref().and_then(|reply| Position::parse(reply));
        let attempt = position.map_or(1, |position| u32::try_from(position.delivered).unwrap_or(u32::MAX));
        let arrival = Arrival {
            flow: &self.flow.name,
            lane: self.lane,
            answers: self.flow.declared.answers,
            attempt,
            sequence: position.map_or(0, |position| position.stream_sequence),
        };
        (codec::decode(&raw.message, &arrival, &mut self.seen), attempt)
    }

    /// Ends an event that came again and again without anybody reporting how it went.
    async fn give_up(&self, hold: Hold, envelope: Envelope, payload: Payload) {
        let deliveries = envelope.attempt.saturating_sub(1);
        let detail = format!("delivered {deliveries} times and never settled: whoever worked on it died");
        let cause = Rejection::new(500, "never_settled", detail);
        tracing::error!(flow = %self.flow.name, event = %envelope.id, deliveries, "gave up an event");
        let request = envelope.request.clone();
        let stage = INTAKE.into();
        let letter = DeadLetter { envelope, payload, stage, faults: 0, cause: cause.clone(), error: None };
        let kept = async {
            dead::keep(&self.inner, letter).await?;
            match request {
                Some(request) => results::fail(&self.inner, &request, &self.flow.name, &cause).await,
                None => Ok(()),
            }
        };
        self.conclude(hold, kept.await).await;
    }

    /// Ends an event that nobody can read.
    async fn put_aside(&self, raw: Raw, cause: Rejection) {
        tracing::warn!(flow = %self.flow.name, %cause, "an event that cannot be read became a dead letter");
        let kept = dead::keep_raw(&self.inner, &self.flow.name, self.lane, &raw.message, INTAKE, &cause).await;
        self.conclude(raw.hold, kept).await;
    }

    async fn conclude(&self, hold: Hold, kept: Result<(), TransportError>) {
        let settlement = match kept {
            Ok(()) => Settlement::Done,
            Err(error) => {
                tracing::warn!(flow = %self.flow.name, %error, "dead letter not stored, the event comes again");
                Settlement::Retry(self.bounds.ack_wait, "its dead letter was not stored".into())
            }
        };
        hold.settle(settlement).await;
    }
}

struct Ack {
    hold: Hold,
}

#[async_trait]
impl Acknowledge for Ack {
    async fn settle(self: Box<Self>, settlement: Settlement) -> bool {
        self.hold.settle(settlement).await
    }
}
