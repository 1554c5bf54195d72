//! Events that have ended and are in the queue again.
//!
//! A broker whose disk was full, or whose machine lost power, may have stored that an event was acknowledged but not that
//! it was deleted. After a restart the event is in the stream again, behind the position of its consumer: it is never
//! delivered, never deleted, and takes a place of the queue for good. The streams allow nobody to delete messages, so the
//! consumer is created again: it delivers the event once more, and the ledger says that it has ended.
//!
//! This happens only while nothing of the consumer is in flight, because that would be delivered again too.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use pipeline::BoxError;
use tokio_util::sync::CancellationToken;

use crate::link::broker::Broker;
use crate::link::flow::DeclaredFlow;
use crate::link::streams::LanePart;

/// Time between two looks. An event that was just acknowledged is deleted by the second one.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks for such events whenever the connection is established, until there is none; ends when the source is dropped.
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
        }
    }
}

struct ConsumerOf<'b> {
    broker: &'b Broker,
    flow: &'b DeclaredFlow,
    name: String,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Every event in the queue will be delivered.
    Clean,
    /// The event at this position was acknowledged and is there.
    Resurrected { sequence: u64, in_flight: bool },
}

impl Look {
    /// `first`: position of the oldest event in the queue. `acknowledged_to`: every event up to it was acknowledged.
    fn new(first: Option<u64>, acknowledged_to: u64, in_flight: usize) -> Self {
        match first {
            Some(sequence) if sequence <= acknowledged_to => Self::Resurrected { sequence, in_flight: in_flight > 0 },
            _ => Self::Clean,
        }
    }
}

impl ConsumerOf<'_> {
    async fn redeliver_until_clean(&self) {
        let mut before = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let look = match self.look().await {
                Ok(look) => look,
                Err(error) => {
                    tracing::debug!(flow = %self.flow.name, %error, "the queue was not searched for ended events");
                    continue;
                }
            };
            let Look::Resurrected { sequence, in_flight } = look else { return };
            if before == Some(sequence) && !in_flight {
                self.redeliver().await;
            }
            before = Some(sequence);
        }
    }

    async fn look(&self) -> Result<Look, BoxError> {
        let context = &self.broker.work.context;
        let mut consumer: PullConsumer =
            context.get_consumer_from_stream::<pull::Config, _, _>(&self.name, self.flow.stream()).await?;
        let info = consumer.info().await?;
        let (acknowledged_to, in_flight) = (info.ack_floor.stream_sequence, info.num_ack_pending);
        let stream = context.get_stream_no_info(self.flow.stream()).await?;
        let first = match stream.get_first_raw_message_by_subject(&info.config.filter_subject, 1).await {
            Ok(message) => Some(message.sequence),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Look::new(first, acknowledged_to, in_flight))
    }

    /// Deletes the consumer; the pullers create it again, and it begins at the oldest event.
    async fn redeliver(&self) {
        let (flow, consumer) = (&self.flow.name, &self.name);
        tracing::warn!(
            %flow,
            consumer,
            "ended events are in the broker's queue again, as after a full disk: they are delivered once more"
        );
        let deleted = self.broker.work.context.delete_consumer_from_stream(consumer, self.flow.stream()).await;
        if let Err(error) = deleted {
            tracing::debug!(%flow, consumer, %error, "the consumer was not deleted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_behind_the_acknowledged_position_is_resurrected() {
        assert_eq!(Look::new(None, 7, 0), Look::Clean);
        assert_eq!(Look::new(Some(8), 7, 0), Look::Clean);
        assert_eq!(Look::new(Some(7), 7, 2), Look::Resurrected { sequence: 7, in_flight: true });
        assert_eq!(Look::new(Some(3), 7, 0), Look::Resurrected { sequence: 3, in_flight: false });
    }
}
