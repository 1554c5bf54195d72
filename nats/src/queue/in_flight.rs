//! Events in flight: delivered by the broker and not settled yet.
//!
//! The puller of a source adds every delivery the moment it arrives, so that progress is reported for events that still
//! wait for a worker as well as for those at work. Most are settled before the first report and cost none. An
//! [`InFlightEvent`] that is dropped unsettled is handed back: the broker redelivers the event at once.
//!
//! If the broker or this process stands still for longer than `ack_wait`, or the consumer is created again, the broker
//! delivers what is in flight here once more. Such a copy is not begun a second time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use pipeline::Settlement;
use tokio::sync::Notify;

use crate::link::timeout::timeout_if_pending;
use crate::queue::acknowledgements::{ACK, NAK, PROGRESS, nak_after};
use crate::queue::pull_room::Load;
use crate::wire::delivery_position::DeliveryPosition;

/// How long an answer to a delivery may wait in the client while the connection is down. If it is lost, the event is
/// redelivered.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout for the broker's confirmation of a settlement.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// The events in flight of one consumer.
pub struct InFlight {
    client: Client,
    table: Mutex<Table>,
    changed: Notify,
}

/// Deliveries in numbered places. Free places are used again, so it grows to the most events that were ever in flight.
#[derive(Default)]
struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// Positions in the stream of the entries whose position is known.
    sequences: HashSet<u64>,
    /// Bytes of the messages as they were delivered.
    bytes: usize,
    /// The puller waits until no more than this many are in flight.
    wake_at: Option<usize>,
}

/// One delivery.
struct Entry {
    reply: Subject,
    /// Position in the stream, if it is known.
    sequence: Option<u64>,
    /// Whether it was there when progress was last reported.
    aged: bool,
}

impl Table {
    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Adds a delivery and returns its place; `None` if the event is in flight here.
    fn insert(&mut self, reply: Subject, sequence: Option<u64>) -> Option<usize> {
        if sequence.is_some_and(|sequence| !self.sequences.insert(sequence)) {
            return None;
        }
        let entry = Some(Entry { reply, sequence, aged: false });
        Some(match self.free.pop() {
            Some(place) => {
                self.entries[place] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        })
    }

    fn remove(&mut self, place: usize) {
        if let Some(sequence) = self.entries[place].take().and_then(|entry| entry.sequence) {
            self.sequences.remove(&sequence);
        }
        self.free.push(place);
    }

    /// The deliveries that were there at the last call.
    fn aged(&mut self) -> Vec<Subject> {
        let mut aged = Vec::new();
        for entry in self.entries.iter_mut().flatten() {
            if std::mem::replace(&mut entry.aged, true) {
                aged.push(entry.reply.clone());
            }
        }
        aged
    }
}

impl InFlight {
    pub fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, table: Mutex::default(), changed: Notify::new() })
    }

    /// Adds a delivery of this many bytes; `None` if it is a copy of one that is in flight here.
    pub fn add(self: &Arc<Self>, reply: Subject, bytes: usize) -> Option<InFlightEvent> {
        let sequence = DeliveryPosition::parse(&reply).map(|position| position.stream_sequence);
        let mut table = self.lock();
        let place = table.insert(reply.clone(), sequence)?;
        table.bytes += bytes;
        drop(table);
        Some(InFlightEvent { place, bytes, reply, in_flight: Arc::clone(self), settled: false })
    }

    /// Number and bytes of the events in flight.
    pub fn load(&self) -> Load {
        let table = self.lock();
        Load { events: table.len(), bytes: table.bytes }
    }

    /// Waits until at most `most` events are in flight; for ever if `most` is `None`. Returns at once if that is so
    /// already. Cancel-safe.
    pub async fn wait_until_at_most(&self, most: Option<usize>) {
        let Some(most) = most else { return std::future::pending().await };
        {
            let mut table = self.lock();
            if table.len() <= most {
                return;
            }
            table.wake_at = Some(most);
        }
        self.changed.notified().await;
    }

    /// Reports progress for every event that was in flight at the last call, so that the broker does not redeliver it.
    pub async fn report_progress(&self) {
        let aged = self.lock().aged();
        for reply in aged {
            if !self.send(reply, PROGRESS).await {
                return;
            }
        }
    }

    /// Queues an answer in the client. `false` if that timed out: then the connection has been down for long, and
    /// further answers would time out too.
    async fn send(&self, reply: Subject, answer: Bytes) -> bool {
        matches!(timeout_if_pending(SEND_TIMEOUT, self.client.publish(reply, answer)).await, Ok(Ok(())))
    }

    fn remove(&self, place: usize, bytes: usize) {
        let mut table = self.lock();
        table.bytes -= bytes;
        table.remove(place);
        if table.wake_at.is_some_and(|most| table.len() <= most) {
            table.wake_at = None;
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One event in flight. Dropped unsettled, it is handed back.
pub struct InFlightEvent {
    place: usize,
    bytes: usize,
    reply: Subject,
    in_flight: Arc<InFlight>,
    settled: bool,
}

impl InFlightEvent {
    /// Answers the delivery. Only [`Settlement::DoneConfirmed`] waits for the broker's confirmation; returns whether it
    /// came.
    pub async fn settle(mut self, settlement: Settlement) -> bool {
        self.settled = true;
        let answer = match settlement {
            Settlement::DoneConfirmed => {
                let request = self.in_flight.client.request(self.reply.clone(), ACK);
                return matches!(timeout_if_pending(CONFIRM_TIMEOUT, request).await, Ok(Ok(_)));
            }
            Settlement::Done => ACK,
            Settlement::Retry(delay, reason) => nak_after(delay, &reason),
        };
        if !self.in_flight.send(self.reply.clone(), answer).await {
            tracing::debug!("a settlement was not sent in time, the event is redelivered");
        }
        false
    }
}

impl Drop for InFlightEvent {
    fn drop(&mut self) {
        self.in_flight.remove(self.place, self.bytes);
        if !self.settled {
            // Sent only if the client has room at this moment; otherwise the broker redelivers after `ack_wait`.
            let _ = self.in_flight.client.publish(self.reply.clone(), NAK).now_or_never();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_place_is_used_again() {
        let mut table = Table::default();
        let [first, second] = [("a", 1), ("b", 2)].map(|(reply, at)| table.insert(reply.into(), Some(at)).unwrap());
        table.remove(first);
        assert_eq!(table.insert("c".into(), None), Some(first));
        assert_eq!((table.len(), table.entries.len()), (2, 2));
        table.remove(second);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn an_event_has_aged_when_it_is_seen_the_second_time() {
        let mut table = Table::default();
        table.insert("a".into(), None);
        assert!(table.aged().is_empty());
        let short_lived = table.insert("b".into(), None).unwrap();
        assert_eq!(table.aged(), ["a".into()]);
        table.remove(short_lived);
        table.insert("c".into(), None);
        assert_eq!(table.aged(), ["a".into()]);
    }

    #[test]
    fn an_event_is_in_flight_until_it_is_removed() {
        let mut table = Table::default();
        let place = table.insert("a".into(), Some(7)).unwrap();
        assert!(table.insert("a".into(), Some(7)).is_none() && table.insert("b".into(), Some(8)).is_some());
        table.remove(place);
        assert!(table.insert("a".into(), Some(7)).is_some());
    }
}
