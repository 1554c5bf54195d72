//! The source of a lane: decoded events for the engine. Events that cannot be decoded, or that were delivered too
//! often, are dead-lettered here, and their requests fail.

use std::sync::Arc;

use async_trait::async_trait;
use pipeline::{
    Acknowledge, DeadLetter, Delivery, Envelope, FlowName, Lane, Payload, Rejection, RequestId, Settlement, Source,
    SourceBounds, TransportError,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::link::broker::Broker;
use crate::link::flow::DeclaredFlow;
use crate::link::streams::{self, LanePart};
use crate::queue::deliveries::{RawDelivery, UntakenDeliveries};
use crate::queue::in_flight::{InFlight, InFlightEvent};
use crate::queue::puller::Puller;
use crate::queue::undeleted;
use crate::stores::{dead_letters, results};
use crate::topology::PARTITIONS;
use crate::wire::cloud_event::{self, Arrival, AttributeCache};
use crate::wire::delivery_position::DeliveryPosition;

/// The stage in dead letters of events that reached no stage.
const INTAKE: &str = "intake";

/// Opens the source of a lane: creates its consumers and starts a puller for each.
pub async fn open(
    broker: &Arc<Broker>,
    flow: &FlowName,
    lane: Lane,
    bounds: SourceBounds,
) -> Result<Box<dyn Source>, TransportError> {
    let flow = broker.flow(flow)?;
    let bounds = SourceBounds { events: bounds.events.max(1), ..bounds };
    let (sender, deliveries) = mpsc::channel(2 * bounds.events + 1);
    let (closed, untaken) = (CancellationToken::new(), Arc::<UntakenDeliveries>::default());
    for (part, bounds) in lane_parts(lane, bounds) {
        streams::ensure_consumer(&broker.work.context, &flow.topology, &part, bounds.ack_wait)
            .await
            .map_err(TransportError::Unavailable)?;
        let in_flight = InFlight::new(broker.work.client());
        let (broker, flow, deliveries) = (Arc::clone(broker), Arc::clone(&flow), sender.clone());
        let puller = Puller { broker: Arc::clone(&broker), flow, part, bounds, in_flight, deliveries };
        let (watched, of) = (Arc::clone(&puller.broker), Arc::clone(&puller.flow));
        broker.tasks.spawn(undeleted::watch(watched, of, puller.part, closed.clone()));
        broker.tasks.spawn(puller.run(closed.clone(), Arc::clone(&untaken)));
    }
    Ok(Box::new(LaneSource {
        broker: Arc::clone(broker),
        flow,
        lane,
        bounds,
        deliveries: Some(deliveries),
        cache: AttributeCache::default(),
        closed,
        untaken,
    }))
}

/// The consumers of a lane with the bounds of each: one consumer, or one per partition if events keep an order.
fn lane_parts(lane: Lane, bounds: SourceBounds) -> Vec<(LanePart, SourceBounds)> {
    if !bounds.ordered {
        return vec![(LanePart { lane, partition: None }, bounds)];
    }
    let bounds = SourceBounds { events: 1, ..bounds };
    (0..PARTITIONS).map(|number| (LanePart { lane, partition: Some(number) }, bounds)).collect()
}

struct LaneSource {
    broker: Arc<Broker>,
    flow: Arc<DeclaredFlow>,
    lane: Lane,
    bounds: SourceBounds,
    /// Events that arrived; `Some` until the source is dropped.
    deliveries: Option<mpsc::Receiver<RawDelivery>>,
    cache: AttributeCache,
    closed: CancellationToken,
    untaken: Arc<UntakenDeliveries>,
}

#[async_trait]
impl Source for LaneSource {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let raw = self.deliveries.as_mut()?.recv().await?;
            let (decoded, attempt) = self.decode(&raw);
            match decoded {
                Ok((envelope, payload)) if attempt <= self.bounds.max_deliver => {
                    let ack = Box::new(Acknowledgement { in_flight: raw.in_flight });
                    return Some(Delivery { envelope, payload, ack });
                }
                // If this future is dropped half-way, the event is handed back, and dead-lettered at its next delivery.
                Ok((envelope, payload)) => self.dead_letter(raw.in_flight, envelope, payload).await,
                Err(cause) => self.dead_letter_unreadable(raw, cause).await,
            }
        }
    }
}

impl Drop for LaneSource {
    fn drop(&mut self) {
        // The last puller to stop hands them back.
        self.untaken.take_over(self.deliveries.take());
        self.closed.cancel();
    }
}

impl LaneSource {
    /// The decoded event and the number of this delivery.
    fn decode(&mut self, raw: &RawDelivery) -> (Result<(Envelope, Payload), Rejection>, u32) {
        let flow = Arc::clone(&self.flow);
        let arrival = arrival(&flow, self.lane, raw);
        (cloud_event::decode(&raw.message, &arrival, &mut self.cache), arrival.attempt)
    }

    /// Dead-letters an event that was delivered again and again and never settled.
    async fn dead_letter(&self, in_flight: InFlightEvent, envelope: Envelope, payload: Payload) {
        let deliveries = envelope.attempt.saturating_sub(1);
        let detail = format!("delivered {deliveries} times and never settled");
        let cause = Rejection::new(500, "never_settled", detail);
        let (flow, event) = (&self.flow.name, &envelope.id);
        tracing::error!(%flow, %event, deliveries, "an event that was never settled is dead-lettered");
        let request = envelope.request.clone();
        let stage = INTAKE.into();
        let letter = DeadLetter { envelope, payload, stage, faults: 0, cause: cause.clone(), error: None };
        let stored = async {
            dead_letters::store(&self.broker, letter).await?;
            self.tell(request.as_ref(), &cause).await
        };
        self.settle(in_flight, stored.await).await;
    }

    /// Dead-letters an event that cannot be decoded, under its id, as far as one can be read.
    async fn dead_letter_unreadable(&self, raw: RawDelivery, cause: Rejection) {
        let arrival = arrival(&self.flow, self.lane, &raw);
        let (id, request) = cloud_event::salvage(&raw.message, &arrival)
            .map_or((None, None), |(envelope, _)| (Some(envelope.id), envelope.request));
        let event = id.as_ref().map(tracing::field::display);
        tracing::warn!(flow = %self.flow.name, event, %cause, "an event that cannot be decoded is dead-lettered");
        let stored = async {
            dead_letters::store_unreadable(&self.broker, &arrival, &raw.message, id.as_ref(), INTAKE, &cause).await?;
            self.tell(request.as_ref(), &cause).await
        };
        self.settle(raw.in_flight, stored.await).await;
    }

    /// Ends the request, if there is one: its publisher may wait for it.
    async fn tell(&self, request: Option<&RequestId>, cause: &Rejection) -> Result<(), TransportError> {
        match request {
            Some(request) => results::publish_failed(&self.broker, request, &self.flow.name, cause).await,
            None => Ok(()),
        }
    }

    /// Removes a dead-lettered event from the queue, or has it redelivered if its dead letter was not stored.
    async fn settle(&self, in_flight: InFlightEvent, stored: Result<(), TransportError>) {
        let settlement = match stored {
            Ok(()) => Settlement::Done,
            Err(error) => {
                let flow = &self.flow.name;
                tracing::warn!(%flow, %error, "a dead letter was not stored, the event is redelivered");
                Settlement::Retry(self.bounds.ack_wait, "its dead letter was not stored".into())
            }
        };
        in_flight.settle(settlement).await;
    }
}

/// What is known of a message from its delivery.
fn arrival<'f>(flow: &'f DeclaredFlow, lane: Lane, raw: &RawDelivery) -> Arrival<'f> {
    let position = raw.message.reply.as_ref().and_then(|reply| DeliveryPosition::parse(reply));
    Arrival {
        flow: &flow.name,
        lane,
        answers: flow.topology.answers,
        attempt: position.map_or(1, |position| u32::try_from(position.delivered).unwrap_or(u32::MAX)),
        sequence: position.map_or(0, |position| position.stream_sequence),
    }
}

struct Acknowledgement {
    in_flight: InFlightEvent,
}

#[async_trait]
impl Acknowledge for Acknowledgement {
    async fn settle(self: Box<Self>, settlement: Settlement) -> bool {
        self.in_flight.settle(settlement).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn parts(ordered: bool) -> Vec<(LanePart, SourceBounds)> {
        let bounds =
            SourceBounds { events: 16, bytes: 1 << 20, ordered, ack_wait: Duration::from_secs(1), max_deliver: 1 };
        lane_parts(Lane::Bulk, bounds)
    }

    #[test]
    fn a_lane_without_order_has_one_consumer_with_all_of_the_bounds() {
        let parts = parts(false);
        assert_eq!(parts.len(), 1);
        assert_eq!((parts[0].0.partition, parts[0].1.events), (None, 16));
    }

    #[test]
    fn a_lane_with_order_has_a_consumer_per_partition_with_one_event_each() {
        let parts = parts(true);
        assert_eq!(parts.len(), PARTITIONS as usize);
        assert!(parts.iter().all(|(part, bounds)| part.partition.is_some() && bounds.events == 1));
    }
}
