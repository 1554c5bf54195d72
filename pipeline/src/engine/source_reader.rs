//! The source reader: brings the events of one lane from the broker into the first queue.
//!
//! A place is taken before an event is pulled, and the ledger is read before the first one. Copies of events that have
//! ended are acknowledged here; suspects are processed alone (see [`suspects`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::flow_shared::FlowShared;
use super::in_flight_limit::InFlightLimit;
use super::suspects::{self, Treatment};
use crate::claims;
use crate::edges::Queue;
use crate::envelope::Lane;
use crate::event::{Event, Place, Root};
use crate::fault::Rejection;
use crate::ledger::End;
use crate::transport::{Delivery, Settlement, Source, Transport};

/// How long a drain waits until a note about a suspect is withdrawn that may not even be stored.
const WITHDRAWAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads one lane of a flow.
pub struct SourceReader {
    /// Cancelled once everything the ledger holds is known here.
    pub ledger_read: CancellationToken,
    pub lane: Lane,
    pub source: Box<dyn Source>,
    /// Shared by the lanes of the flow.
    pub limit: InFlightLimit,
    /// Before the first stage.
    pub queue: Arc<Queue>,
    pub flow: Arc<FlowShared>,
    pub transport: Arc<dyn Transport>,
    /// Has room for every event that has a place.
    pub settler: mpsc::Sender<Arc<Root>>,
    /// Cancelled when the flow begins to drain.
    pub stop: CancellationToken,
}

/// Whether the reader goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Read,
    Stop,
}

impl SourceReader {
    /// Reads until the flow drains or the source ends. Events reach the queue in the order of their deliveries.
    ///
    /// Each wait ends at `stop`, and none holds an event that is lost by that: one that was pulled and not begun is handed
    /// back to the broker by being dropped.
    pub async fn run(mut self) {
        tokio::select! {
            () = self.stop.cancelled() => return,
            () = self.ledger_read.cancelled() => {}
        }
        loop {
            let place = tokio::select! {
                () = self.stop.cancelled() => return,
                place = self.limit.acquire(self.lane) => place,
            };
            let delivery = tokio::select! {
                () = self.stop.cancelled() => return,
                delivery = self.source.next() => delivery,
            };
            let Some(delivery) = delivery else { return };
            if self.read(delivery, place).await == Next::Stop {
                return;
            }
        }
    }

    async fn read(&mut self, delivery: Delivery, place: Place) -> Next {
        if let Some(end) = self.flow.ledger.look_up(&self.flow.name, &delivery.envelope.id) {
            self.acknowledge_copy(delivery, end).await;
            return Next::Read;
        }
        let is_suspect = suspects::is_suspect(delivery.envelope.attempt, self.flow.retry.attempts);
        let turn = tokio::select! {
            () = self.stop.cancelled() => return Next::Stop,
            turn = self.limit.alone(), if is_suspect => turn,
            turn = self.limit.beside_others(), if !is_suspect => turn,
        };
        let place = Place { turn: Some(turn), ..place };
        if is_suspect { self.feed_suspect(delivery, place).await } else { self.feed(delivery, place).await }
    }

    /// Acknowledges a copy of an event that has ended: its result is stored, its effects are visible.
    async fn acknowledge_copy(&mut self, delivery: Delivery, end: End) {
        self.flow.metrics.repeated.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(flow = %self.flow.name, event = %delivery.envelope.id, "ended before, not done again");
        if end == End::Settled {
            claims::drop_all(&*self.transport, &delivery.payload).await;
        }
        delivery.ack.settle(Settlement::Done).await;
    }

    /// Begins the event and puts it into the queue; stops once the queue is closed.
    async fn feed(&mut self, delivery: Delivery, place: Place) -> Next {
        let event = self.begin(delivery, place);
        match self.queue.send(event).await {
            Ok(()) => Next::Read,
            Err(_) => Next::Stop,
        }
    }

    /// Waits until the note is stored, for as long as the flow does not drain: without it the suspect must not be begun.
    async fn feed_suspect(&mut self, delivery: Delivery, place: Place) -> Next {
        let (flow, event) = (self.flow.name.clone(), delivery.envelope.id.clone());
        let begun = self.flow.storage.wait_out(1, || suspects::begin(&*self.transport, &self.flow.incarnation, &event));
        let treatment = tokio::select! {
            treatment = begun => treatment,
            () = self.stop.cancelled() => {
                // The note may be stored all the same, and this process ends without having begun the event.
                let withdrawal = suspects::withdraw(&*self.transport, &self.flow.incarnation, &event);
                let _ = tokio::time::timeout(WITHDRAWAL_TIMEOUT, withdrawal).await;
                return Next::Stop;
            }
        };
        match treatment {
            Ok(Treatment::Alone) => {
                self.flow.begin_suspect(&event);
                tracing::warn!(%flow, %event, deliveries = delivery.envelope.attempt, "a suspect is processed alone");
                self.feed(delivery, place).await
            }
            Ok(Treatment::DeadLetter { deaths }) => {
                let begun = self.begin(delivery, place);
                let detail = format!("the process died {deaths} times while it processed this event alone");
                begun.root.reject(&"intake".into(), Rejection::new(500, "never_settled", detail));
                begun.root.finish();
                Next::Read
            }
            Err(error) => {
                // Dropped, and so handed back.
                tracing::warn!(%flow, %event, %error, "the note about a suspect cannot be stored, it is redelivered");
                Next::Read
            }
        }
    }

    fn begin(&self, delivery: Delivery, place: Place) -> Event {
        self.flow.metrics.delivered.fetch_add(1, Ordering::Relaxed);
        self.flow.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
        Event::begin(delivery, place, self.settler.clone(), &self.flow.cancellations)
    }
}
