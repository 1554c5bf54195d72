//! Events that have ended and are still, or again, in the queue.
//!
//! If the broker's disk is full while an event is acknowledged, or its machine loses power, the position of the consumer
//! advances and the event is not deleted. It is then behind that position: it is never delivered, never deleted, also after
//! a restart, and takes a place of the queue for good. The streams allow nobody to delete messages, so the
//! consumer is created again: it delivers the event once more, and the ledger says that it has ended.
//!
//! What is in flight would be delivered again too, and perhaps be begun twice. So the consumer is paused first, until every
//! event in flight has ended. If that takes too long, it goes on, and is tried again later.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use pipeline::BoxError;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::link::broker::Broker;
use crate::link::flow::DeclaredFlow;
use crate::link::streams::LanePart;

/// Time between two looks. An event that was just acknowledged is deleted by the second one.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time after which it is looked again without a new connection.
const PERIOD: Duration = Duration::from_secs(600);
/// The longest time between two looks, while events in flight are in the way: each look pauses the consumer for a while.
const LONGEST_PAUSE: Duration = PERIOD;
/// How long the consumer is paused at most; it goes on by itself afterwards.
const PAUSED_FOR: Duration = Duration::from_secs(10);
/// Time between two looks whether anything is in flight.
const IDLE_INTERVAL: Duration = Duration::from_millis(50);

/// Looks for such events whenever the connection is established, and now and then, until there is none; ends when the source
/// is dropped.
pub async fn watch(broker: Arc<Broker>, flow: Arc<DeclaredFlow>, part: LanePart, closed: CancellationToken) {
    let consumer = ConsumerOf { broker: &broker, flow: &flow, name: part.consumer() };
    let mut established = broker.work.established.clone();
    loop {
        established.mark_unchanged();
        tokio::select! {
            () = closed.cancelled() => return,
            () = broker.stop.cancelled() => return,
            () = consumer.redeliver_until_clean() => {}
        }
        tokio::select! {
            () = closed.cancelled() => return,
            () = broker.stop.cancelled() => return,
            changed = established.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

struct ConsumerOf<'b> {
    broker: &'b Broker,
    flow: &'b DeclaredFlow,
    name: String,
}

/// The position of a consumer, and of the oldest event that it should deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// Of the oldest event in the queue; `None` if it is empty.
    first: Option<u64>,
    /// Every event up to here was acknowledged.
    acknowledged_to: u64,
    /// The last event that was delivered.
    delivered_to: u64,
    in_flight: usize,
}

impl Position {
    /// An event that was acknowledged and is in the queue.
    fn undeleted(self) -> Option<u64> {
        self.first.filter(|first| *first <= self.acknowledged_to)
    }
}

impl ConsumerOf<'_> {
    /// Ends once everything that had been delivered at the first look is acknowledged and gone: events that are behind
    /// one in flight show only when that has ended.
    async fn redeliver_until_clean(&self) {
        let (mut until, mut before, mut pause) = (None, None, INTERVAL);
        loop {
            tokio::time::sleep(pause).await;
            let position = match self.look().await {
                Ok(position) => position,
                Err(error) => {
                    tracing::debug!(flow = %self.flow.name, %error, "the queue was not searched for ended events");
                    continue;
                }
            };
            let until = *until.get_or_insert(position.delivered_to);
            match position.undeleted() {
                None if position.acknowledged_to >= until || position.in_flight == 0 => return,
                None => {}
                // It was seen before: it is not one that is just being deleted.
                found if before == found => match self.redeliver().await {
                    Ok(true) => pause = INTERVAL,
                    Ok(false) => pause = (pause * 2).min(LONGEST_PAUSE),
                    Err(error) => tracing::debug!(flow = %self.flow.name, %error, "ended events were not redelivered"),
                },
                found => before = found,
            }
        }
    }

    async fn look(&self) -> Result<Position, BoxError> {
        let context = &self.broker.work.context;
        let mut consumer: PullConsumer =
            context.get_consumer_from_stream::<pull::Config, _, _>(&self.name, self.flow.stream()).await?;
        let info = consumer.info().await?;
        let (acknowledged_to, in_flight) = (info.ack_floor.stream_sequence, info.num_ack_pending);
        let delivered_to = info.delivered.stream_sequence;
        let stream = context.get_stream_no_info(self.flow.stream()).await?;
        let first = match stream.get_first_raw_message_by_subject(&info.config.filter_subject, 1).await {
            Ok(message) => Some(message.sequence),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Position { first, acknowledged_to, delivered_to, in_flight })
    }

    /// Waits until nothing is in flight, and deletes the consumer; the pullers create it again, and it begins at the oldest
    /// event. Returns whether that was in time.
    async fn redeliver(&self) -> Result<bool, BoxError> {
        let (flow, consumer) = (&self.flow.name, &self.name);
        let stream = self.broker.work.context.get_stream_no_info(self.flow.stream()).await?;
        stream.pause_consumer(consumer, OffsetDateTime::now_utc() + PAUSED_FOR).await?;
        let is_idle = tokio::time::timeout(PAUSED_FOR / 2, self.wait_until_idle()).await.is_ok();
        if !is_idle {
            stream.resume_consumer(consumer).await?;
            return Ok(false);
        }
        tracing::warn!(
            %flow,
            consumer,
            "ended events are in the broker's queue again, as after a full disk: they are delivered once more"
        );
        stream.delete_consumer(consumer).await?;
        Ok(true)
    }

    async fn wait_until_idle(&self) {
        while !self.look().await.is_ok_and(|position| position.in_flight == 0) {
            tokio::time::sleep(IDLE_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undeleted(first: Option<u64>) -> Option<u64> {
        Position { first, acknowledged_to: 7, delivered_to: 9, in_flight: 2 }.undeleted()
    }

    #[test]
    fn an_event_behind_the_acknowledged_position_is_undeleted() {
        assert_eq!((undeleted(Some(7)), undeleted(Some(3))), (Some(7), Some(3)));
    }

    #[test]
    fn an_event_after_the_acknowledged_position_will_be_delivered_or_is_in_flight() {
        assert_eq!((undeleted(None), undeleted(Some(8))), (None, None));
    }
}
