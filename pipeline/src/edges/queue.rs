//! The bounded queue before a stage: by events and by bytes, in two lanes.
//!
//! Order: events of one lane leave in the order in which they were stored; between the lanes the
//! [`LanePolicy`](super::lane_policy) decides.
//!
//! Bulk events may hold at most half of either bound, so that an interactive event always finds room that bulk cannot
//! take. An event larger than the byte bound takes the whole bound, and so passes alone. If there is no room, the edge's
//! own [`Overflow`] says what happens; an event that is left out is counted, and its requester gets a result.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lane_policy::{Decision, LanePolicy, Waiting};
use super::room::{Bound, Room};
use crate::envelope::Lane;
use crate::event::Event;
use crate::fault::Rejection;

/// What an edge does when it is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// The stage before waits, and so everything back to the broker. Nothing is lost.
    #[default]
    Block,
    /// The longest waiting event of the lane makes room: for readings of which the newest counts.
    DropOldest,
    /// The event itself is left out.
    DropNewest,
    /// The event ends in failure, as a dead letter if it has no request.
    Reject,
}

/// Bounds of a queue. Both hold.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Most events that wait.
    pub events: usize,
    /// Most bytes of them in memory.
    pub bytes: usize,
    /// What happens to an event that finds no room.
    pub overflow: Overflow,
}

/// The queue was closed; the event was not taken.
#[derive(Debug)]
pub struct Closed;

/// What waits, and the policy that says what goes next. One lock holds both, so that a decision is never about events
/// that another worker has taken meanwhile.
struct Lanes {
    interactive: VecDeque<(Event, Room)>,
    /// Each with its room among all events and its room among the bulk events.
    bulk: VecDeque<(Event, Room, Room)>,
    policy: LanePolicy,
    /// Never unset. Once set, nothing is stored any more.
    closed: bool,
}

impl Lanes {
    fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.bulk.is_empty()
    }

    fn waiting(&self) -> Waiting {
        Waiting { interactive: !self.interactive.is_empty(), bulk: !self.bulk.is_empty() }
    }

    /// Takes up to `most` events of a lane, oldest first, and frees their room.
    fn drain(&mut self, lane: Lane, most: usize) -> Vec<Event> {
        match lane {
            Lane::Interactive => {
                let count = most.min(self.interactive.len());
                self.interactive.drain(..count).map(|(event, _)| event).collect()
            }
            Lane::Bulk => {
                let count = most.min(self.bulk.len());
                self.bulk.drain(..count).map(|(event, ..)| event).collect()
            }
        }
    }
}

/// Events of one lane that a worker took. Dropped once they are done, which tells the lane policy.
pub struct Batch<'q> {
    /// Never empty when received; the worker takes them out.
    pub events: Vec<Event>,
    lane: Lane,
    begun: Instant,
    queue: &'q Queue,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.lane == Lane::Bulk {
            self.queue.lock().policy.bulk_done(self.begun, Instant::now());
            // A worker may wait for the end of this batch.
            self.queue.filled.notify_one();
        }
    }
}

/// How many events one call of [`Queue::recv`] takes.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Most events of either lane.
    pub events: usize,
    /// Most bulk events; not above `events` in effect.
    pub bulk_events: usize,
    /// How long to wait for a fuller batch once there is an event; zero takes what is there.
    pub linger: Duration,
}

/// The queue before one stage, shared by the stage before and its own workers. See the file's header for the order.
pub struct Queue {
    /// Room for events of both lanes.
    all: Bound,
    /// Room for bulk events: half of `all`.
    bulk: Bound,
    lanes: Mutex<Lanes>,
    /// Notified after every change that a waiting worker may act on.
    filled: Notify,
    /// Cancelled when the queue is closed.
    closing: CancellationToken,
    /// Events that wait; raised before a worker can take them, lowered afterwards.
    length: AtomicUsize,
    /// Bytes of the events that wait; counted like `length`.
    bytes: AtomicUsize,
    /// Most events that fit.
    pub capacity: usize,
    /// The stage it stands before.
    stage: Arc<str>,
    overflow: Overflow,
    /// Events left out so far.
    dropped: AtomicU64,
}

impl Queue {
    /// An empty queue before `stage`, which has so many workers.
    pub fn new(stage: Arc<str>, limits: QueueLimits, workers: usize) -> Self {
        let QueueLimits { events, bytes, overflow } = limits;
        Self {
            all: Bound::new(events, bytes),
            bulk: Bound::new(events / 2, bytes / 2),
            lanes: Mutex::new(Lanes {
                interactive: VecDeque::new(),
                bulk: VecDeque::new(),
                policy: LanePolicy::new(workers),
                closed: false,
            }),
            filled: Notify::new(),
            closing: CancellationToken::new(),
            length: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            capacity: events,
            stage,
            overflow,
            dropped: AtomicU64::new(0),
        }
    }

    /// Stores the event at the end of its lane; if there is no room, does what [`Overflow`] says: waits, or leaves out
    /// this event or the oldest of its lane.
    pub async fn send(&self, event: Event) -> Result<(), Closed> {
        let event = match self.try_send(event) {
            Ok(()) => return Ok(()),
            Err(event) => event,
        };
        match self.overflow {
            Overflow::Block => self.send_when_room(event).await,
            _ if self.is_closed() => Err(Closed),
            Overflow::DropNewest | Overflow::Reject => {
                self.leave_out(&event);
                Ok(())
            }
            Overflow::DropOldest => {
                self.displace_oldest(event);
                Ok(())
            }
        }
    }

    /// Stores the event if there is room at once; otherwise, or if the queue is closed, gives it back unchanged.
    pub fn try_send(&self, event: Event) -> Result<(), Event> {
        let size = event.payload.resident_bytes();
        let bulk_room = match event.envelope.lane {
            Lane::Interactive => None,
            Lane::Bulk => match self.bulk.try_room(size) {
                Some(room) => Some(room),
                None => return Err(event),
            },
        };
        let Some(room) = self.all.try_room(size) else { return Err(event) };
        self.store(event, size, room, bulk_room)
    }

    /// Waits for an event, then takes up to a batch of one lane, oldest first; `None` once closed and empty.
    ///
    /// Cancel-safe until it returns, except while it lingers: then the events of the batch are redelivered.
    pub async fn recv(&self, limits: BatchLimits) -> Option<Batch<'_>> {
        let mut batch = loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            // Registered before looking: an event stored in between wakes this worker.
            filled.as_mut().enable();
            let held_until = match self.try_recv(limits) {
                TryRecv::Batch(batch) => break batch,
                TryRecv::HeldUntil(until) => Some(until),
                TryRecv::Empty => None,
                TryRecv::Finished => {
                    // `close` wakes the workers that wait, not those about to; each one passes it on to one more.
                    self.filled.notify_one();
                    return None;
                }
            };
            match held_until {
                None => filled.await,
                Some(until) => {
                    let _ = tokio::time::timeout_at(until, filled).await;
                }
            }
        };
        let most = if batch.lane == Lane::Bulk { limits.events.min(limits.bulk_events) } else { limits.events };
        if batch.events.len() < most && !limits.linger.is_zero() {
            tokio::time::sleep(limits.linger).await;
            batch.events.extend(self.drain(batch.lane, most - batch.events.len()));
        }
        Some(batch)
    }

    /// Refuses further events; those that wait can still be received.
    pub fn close(&self) {
        self.lock().closed = true;
        self.closing.cancel();
        self.filled.notify_waiters();
        self.filled.notify_one();
    }

    /// Whether the queue refuses further events.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Bytes of the events that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Events left out so far, because there was no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    async fn send_when_room(&self, event: Event) -> Result<(), Closed> {
        let size = event.payload.resident_bytes();
        let bulk_room = match event.envelope.lane {
            Lane::Interactive => None,
            Lane::Bulk => Some(self.bulk.room(size).await.ok_or(Closed)?),
        };
        let room = self.all.room(size).await.ok_or(Closed)?;
        self.store(event, size, room, bulk_room).map_err(|_| Closed)
    }

    /// Leaves out the oldest events of the lane until this one fits, or this one if its lane is empty.
    fn displace_oldest(&self, mut event: Event) {
        loop {
            let oldest = self.drain(event.envelope.lane, 1);
            if oldest.is_empty() {
                // The other lane has the room, and this lane must not displace it.
                return self.leave_out(&event);
            }
            oldest.iter().for_each(|oldest| self.leave_out(oldest));
            // Another sender may have taken the room that became free: then one more must go.
            match self.try_send(event) {
                Ok(()) => return,
                Err(again) => event = again,
            }
        }
    }

    /// Ends an event for which there was no room. Without a request it is dropped silently, unless the edge rejects.
    fn leave_out(&self, event: &Event) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if event.envelope.request.is_some() || self.overflow == Overflow::Reject {
            let detail = format!("stage {} is full ({} events): try again later", self.stage, self.capacity);
            event.root.reject(&self.stage, Rejection::new(503, "overflow", detail));
        }
        event.root.finish();
    }

    fn store(&self, event: Event, size: usize, room: Room, bulk_room: Option<Room>) -> Result<(), Event> {
        {
            let mut lanes = self.lock();
            if lanes.closed {
                return Err(event);
            }
            // Counted before any worker can take it, or the count could go below zero.
            self.length.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(size, Ordering::Relaxed);
            match bulk_room {
                None => lanes.interactive.push_back((event, room)),
                Some(bulk_room) => lanes.bulk.push_back((event, room, bulk_room)),
            }
        }
        self.filled.notify_one();
        Ok(())
    }

    /// Takes a batch if the lane policy gives one now.
    fn try_recv(&self, limits: BatchLimits) -> TryRecv<'_> {
        let now = Instant::now();
        let mut lanes = self.lock();
        let waiting = lanes.waiting();
        let (lane, most) = match lanes.policy.next(waiting, now) {
            Decision::Interactive => (Lane::Interactive, limits.events),
            Decision::Bulk { single: true } => (Lane::Bulk, 1),
            Decision::Bulk { single: false } => (Lane::Bulk, limits.events.min(limits.bulk_events)),
            Decision::HoldBulkUntil(until) => return TryRecv::HeldUntil(until),
            Decision::Idle if lanes.closed => return TryRecv::Finished,
            Decision::Idle => return TryRecv::Empty,
        };
        let events = lanes.drain(lane, most);
        let more = !lanes.is_empty();
        drop(lanes);
        self.count_taken(&events, more);
        TryRecv::Batch(Batch { events, lane, begun: now, queue: self })
    }

    /// Takes up to `most` events of a lane, whatever the lane policy says.
    fn drain(&self, lane: Lane, most: usize) -> Vec<Event> {
        let mut lanes = self.lock();
        let events = lanes.drain(lane, most);
        let more = !lanes.is_empty();
        drop(lanes);
        self.count_taken(&events, more);
        events
    }

    /// Counts off events that were taken. If more wait, wakes another worker: one notification may stand for many events.
    fn count_taken(&self, events: &[Event], more: bool) {
        if events.is_empty() {
            return;
        }
        self.length.fetch_sub(events.len(), Ordering::Relaxed);
        let size: usize = events.iter().map(|event| event.payload.resident_bytes()).sum();
        self.bytes.fetch_sub(size, Ordering::Relaxed);
        if more {
            self.filled.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look into the queue found.
enum TryRecv<'q> {
    /// A batch, now the worker's.
    Batch(Batch<'q>),
    /// Bulk events that are held back until then, or until an event arrives.
    HeldUntil(Instant),
    /// Nothing yet.
    Empty,
    /// Nothing, and nothing more will come.
    Finished,
}

#[cfg(test)]
mod tests;
