//! Brings the events of one lane into the first queue. The place is taken before the event.
//!
//! An event that was delivered again and again without ever failing is a suspect: perhaps it kills the process, perhaps it
//! only stood near one that does. A suspect is worked on alone, with a note in the broker that says so. Whoever is found
//! with two such notes has killed the process twice with nobody near, and ends as a dead letter; its neighbours do not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::flow::FlowShared;
use super::root::{Place, Turn};
use super::{Queue, Root};
use crate::claims;
use crate::event::Lane;
use crate::fault::Rejection;
use crate::ledger::End;
use crate::names::Token;
use crate::transport::{Delivery, Settlement, Source, Transport, TransportError};

/// Deliveries beyond the attempts of the retry policy before an event is a suspect.
const GRACE: u32 = 2;

/// Times a suspect may be begun alone.
const CHANCES: u32 = 2;

/// Where the notes about suspects are kept.
const SUSPECTS: &str = "suspects";

/// Places in a flow: `all` for every event, `bulk` half of them, so that bulk work never takes the last place.
#[derive(Clone)]
pub struct Permits {
    all: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    /// Held for reading by every event begun, for writing by a suspect.
    turn: Arc<RwLock<()>>,
}

impl Permits {
    /// `in_flight` places.
    pub fn new(in_flight: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(in_flight)),
            bulk: Arc::new(Semaphore::new((in_flight / 2).max(1))),
            turn: Arc::default(),
        }
    }

    async fn acquire(&self, lane: Lane) -> Place {
        let bulk: Option<OwnedSemaphorePermit> = match lane {
            Lane::Interactive => None,
            Lane::Bulk => Arc::clone(&self.bulk).acquire_owned().await.ok(),
        };
        Place { _bulk: bulk, _all: Arc::clone(&self.all).acquire_owned().await.ok(), _turn: None }
    }
}

/// See the module.
pub struct Feed {
    /// Cancelled once everything the ledger holds is known here.
    pub ledger_read: CancellationToken,
    pub lane: Lane,
    pub source: Box<dyn Source>,
    pub permits: Permits,
    pub queue: Arc<Queue>,
    pub flow: Arc<FlowShared>,
    pub transport: Arc<dyn Transport>,
    pub settler: mpsc::Sender<Arc<Root>>,
    pub stop: CancellationToken,
}

impl Feed {
    /// Feeds until the flow stops or the source ends.
    pub async fn run(mut self) {
        tokio::select! {
            () = self.stop.cancelled() => return,
            () = self.ledger_read.cancelled() => {}
        }
        loop {
            let place = tokio::select! {
                () = self.stop.cancelled() => return,
                place = self.permits.acquire(self.lane) => place,
            };
            let delivery = tokio::select! {
                () = self.stop.cancelled() => return,
                delivery = self.source.next() => delivery,
            };
            let Some(delivery) = delivery else { return };
            if let Some(end) = self.flow.ledger.look_up(&self.flow.name, &delivery.envelope.id) {
                self.repeated(delivery, end).await;
                continue;
            }
            let is_suspect = delivery.envelope.attempt > self.flow.retry.attempts + GRACE;
            let fed = match self.turn(is_suspect).await {
                None => return,
                Some(turn) if is_suspect => self.feed_suspect(delivery, Place { _turn: Some(turn), ..place }).await,
                turn => self.feed(delivery, Place { _turn: turn, ..place }).await,
            };
            if !fed {
                return;
            }
        }
    }

    /// Acknowledges a copy of an event that has ended: its result is stored, its effects are visible.
    async fn repeated(&mut self, delivery: Delivery, end: End) {
        self.flow.meter.repeated.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(flow = %self.flow.name, event = %delivery.envelope.id, "ended before, not done again");
        if end == End::Settled {
            claims::drop_all(&*self.transport, &delivery.payload).await;
        }
        delivery.ack.settle(Settlement::Done).await;
    }

    /// Waits until the event may be begun: beside others while no suspect is at work, or alone. `None` when stopped.
    async fn turn(&mut self, alone: bool) -> Option<Turn> {
        let lock = Arc::clone(&self.permits.turn);
        let turn = async {
            if alone {
                Turn::Alone { _guard: lock.write_owned().await }
            } else {
                Turn::Shared { _guard: lock.read_owned().await }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => None,
            turn = turn => Some(turn),
        }
    }

    /// Whether the queue still takes events.
    async fn feed(&mut self, delivery: Delivery, place: Place) -> bool {
        let event = self.begin(delivery, place);
        self.queue.offer(event).await.is_ok()
    }

    async fn feed_suspect(&mut self, delivery: Delivery, place: Place) -> bool {
        let (flow, event) = (self.flow.name.clone(), delivery.envelope.id.clone());
        let chances = match note(&*self.transport, &event).await {
            Ok(chances) => chances,
            Err(error) => {
                // Handed back by being dropped: without the note it must not be begun.
                tracing::warn!(%flow, %event, %error, "a suspect cannot be noted, it comes again");
                return true;
            }
        };
        if chances <= CHANCES {
            tracing::warn!(%flow, %event, deliveries = delivery.envelope.attempt, "a suspect is worked on alone");
            return self.feed(delivery, place).await;
        }
        let begun = self.begin(delivery, place);
        let detail = format!("the process died {CHANCES} times while it worked on this event alone");
        begun.root.reject(&"intake".into(), Rejection::new(500, "never_settled", detail));
        begun.root.finish();
        true
    }

    fn begin(&self, delivery: Delivery, place: Place) -> crate::event::Event {
        self.flow.meter.delivered.fetch_add(1, Ordering::Relaxed);
        self.flow.meter.in_flight.fetch_add(1, Ordering::Relaxed);
        Root::begin(delivery, place, self.settler.clone(), &self.flow.cancellations)
    }
}

/// Notes that a suspect is about to be begun; how often that is the case now.
async fn note(transport: &dyn Transport, event: &Token) -> Result<u32, TransportError> {
    let store = Token::new(SUSPECTS).expect("a constant that is a token");
    let before = transport.get_record(&store, event).await?;
    let count = before.and_then(|note| std::str::from_utf8(&note.value).ok()?.parse::<u32>().ok()).unwrap_or(0) + 1;
    transport.put_record(&store, event, Bytes::from(count.to_string())).await?;
    Ok(count)
}
