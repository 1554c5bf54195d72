//! The bounded queue before a stage: by events and by bytes, interactive before bulk.
//!
//! Bulk events may hold at most half of either bound, so that an interactive event always finds room that bulk cannot
//! take. An event larger than the byte bound takes the whole bound and so passes alone. What happens when there is no room
//! is the edge's own choice ([`Overflow`]); whatever is left out is counted, and whoever asked for it is told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::event::{Event, Lane};
use crate::fault::Rejection;
use crate::operator::Batching;
use crate::spec::{Overflow, QueueSpec};

/// Bytes are counted in units of this size, because a semaphore counts in 32 bits.
const BYTE_UNIT: usize = 1 << 10;

/// While an interactive batch was taken this recently, bulk work keeps out of the way: it leaves one worker free where there
/// are several, takes its events one at a time, and after each rests for as long as it took, so that the next interactive
/// event finds the way free every other time and waits for half a bulk event otherwise.
const COURTESY: Duration = Duration::from_secs(1);

/// After this many interactive batches in a row a waiting bulk event goes first, so that bulk work is slow, not dead.
const BULK_EVERY: u32 = 8;

/// The queue was closed; the event was not taken.
#[derive(Debug)]
pub struct Closed;

struct Bound {
    events: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    byte_units: usize,
}

impl Bound {
    fn new(events: usize, bytes: usize) -> Self {
        let byte_units = (bytes / BYTE_UNIT).max(1);
        Self {
            events: Arc::new(Semaphore::new(events.max(1))),
            bytes: Arc::new(Semaphore::new(byte_units)),
            byte_units,
        }
    }

    fn units(&self, size: usize) -> u32 {
        let units = size.div_ceil(BYTE_UNIT).clamp(1, self.byte_units);
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    fn try_room(&self, size: usize) -> Option<Room> {
        let event = Arc::clone(&self.events).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(self.units(size)).ok()?;
        Some(Room { _event: event, _bytes: bytes })
    }

    async fn room(&self, size: usize) -> Result<Room, Closed> {
        let units = self.units(size);
        let event = Arc::clone(&self.events).acquire_owned().await.map_err(|_| Closed)?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(units).await.map_err(|_| Closed)?;
        Ok(Room { _event: event, _bytes: bytes })
    }
}

/// The room an event takes; freed when dropped.
struct Room {
    _event: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Waiting {
    interactive: VecDeque<(Event, Room)>,
    bulk: VecDeque<(Event, Room, Room)>,
    interactive_in_a_row: u32,
    /// When an interactive batch was last taken.
    interactive_at: Option<Instant>,
    /// Workers with a bulk batch in their hands.
    bulk_at_work: usize,
    /// When bulk work may go on, while interactive work comes.
    bulk_rests_until: Option<Instant>,
    closed: bool,
}

impl Waiting {
    /// Until when bulk work keeps out of the way.
    fn courteous_until(&self, now: Instant) -> Option<Instant> {
        self.interactive_at.map(|at| at + COURTESY).filter(|until| now < *until)
    }

    /// Until when bulk work that keeps out of the way waits: its rest is over, or no interactive work came for a while.
    fn held_back_until(&self, courteous_until: Instant, now: Instant, bulk_workers: usize) -> Option<Instant> {
        if self.bulk_at_work >= bulk_workers {
            return Some(courteous_until);
        }
        self.bulk_rests_until.filter(|until| now < *until).map(|until| until.min(courteous_until))
    }
}

/// A batch that was taken; dropped once it is done, it lets the queue know.
pub struct Taken<'q> {
    pub events: Vec<Event>,
    lane: Lane,
    at: Instant,
    queue: &'q Queue,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.lane == Lane::Bulk {
            let mut waiting = self.queue.lock();
            let now = Instant::now();
            waiting.bulk_at_work -= 1;
            waiting.bulk_rests_until = Some(now + (now - self.at));
            drop(waiting);
            self.queue.filled.notify_one();
        }
    }
}

/// See the module.
pub struct Queue {
    all: Bound,
    bulk: Bound,
    waiting: Mutex<Waiting>,
    filled: Notify,
    length: AtomicUsize,
    bytes: AtomicUsize,
    /// Most events that fit.
    pub capacity: usize,
    /// Workers that may have bulk work while interactive work comes: all but one, and at least one.
    bulk_workers: usize,
    /// The stage it stands before.
    stage: Arc<str>,
    overflow: Overflow,
    dropped: AtomicU64,
}

impl Queue {
    /// The queue before `stage`, which has so many workers.
    pub fn new(stage: Arc<str>, spec: &QueueSpec, workers: usize) -> Self {
        let (events, bytes) = (spec.events.get(), spec.bytes().as_usize());
        Self {
            stage,
            overflow: spec.overflow,
            dropped: AtomicU64::new(0),
            all: Bound::new(events, bytes),
            bulk: Bound::new(events / 2, bytes / 2),
            waiting: Mutex::default(),
            filled: Notify::new(),
            length: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            capacity: events,
            bulk_workers: workers.saturating_sub(1).max(1),
        }
    }

    /// Takes the event as the edge's overflow says: waits for room, or leaves out this event or the oldest of its lane.
    pub async fn offer(&self, event: Event) -> Result<(), Closed> {
        let mut event = match self.try_push(event) {
            Ok(()) => return Ok(()),
            Err(event) => event,
        };
        match self.overflow {
            Overflow::Block => return self.push(event).await,
            _ if self.lock().closed => return Err(Closed),
            Overflow::DropNewest | Overflow::Reject => self.leave_out(&event),
            Overflow::DropOldest => loop {
                let oldest = self.drain(event.envelope.lane, 1);
                if oldest.is_empty() {
                    // The room is with the other lane, which this one must not displace.
                    self.leave_out(&event);
                    break;
                }
                oldest.iter().for_each(|oldest| self.leave_out(oldest));
                match self.try_push(event) {
                    Ok(()) => break,
                    Err(again) => event = again,
                }
            },
        }
        Ok(())
    }

    /// Events left out so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Ends an event there was no room for.
    fn leave_out(&self, event: &Event) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if event.envelope.request.is_some() || self.overflow == Overflow::Reject {
            let detail = format!("stage {} is full ({} events): try again later", self.stage, self.capacity);
            event.root.reject(&self.stage, Rejection::new(503, "overflow", detail));
        }
        event.root.finish();
    }

    /// Takes the event if there is room at once, or gives it back.
    fn try_push(&self, event: Event) -> Result<(), Event> {
        let size = event.payload.resident_bytes();
        let bulk_room = match event.envelope.lane {
            Lane::Interactive => None,
            Lane::Bulk => match self.bulk.try_room(size) {
                Some(room) => Some(room),
                None => return Err(event),
            },
        };
        let Some(room) = self.all.try_room(size) else { return Err(event) };
        // A queue that was closed says so to whoever then waits for room.
        self.put(event, size, room, bulk_room)
    }

    /// Waits for room and takes the event.
    async fn push(&self, event: Event) -> Result<(), Closed> {
        let size = event.payload.resident_bytes();
        let bulk_room = match event.envelope.lane {
            Lane::Interactive => None,
            Lane::Bulk => Some(self.bulk.room(size).await?),
        };
        let room = self.all.room(size).await?;
        self.put(event, size, room, bulk_room).map_err(|_| Closed)
    }

    fn put(&self, event: Event, size: usize, room: Room, bulk_room: Option<Room>) -> Result<(), Event> {
        {
            let mut waiting = self.lock();
            if waiting.closed {
                return Err(event);
            }
            // Counted before anybody can take it.
            self.length.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(size, Ordering::Relaxed);
            match bulk_room {
                None => waiting.interactive.push_back((event, room)),
                Some(bulk_room) => waiting.bulk.push_back((event, room, bulk_room)),
            }
        }
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for at least one event and takes up to `batching.events`, all of one lane, of the bulk lane up to `bulk_most`;
    /// `None` once closed and empty.
    pub async fn pop(&self, batching: Batching, bulk_most: usize) -> Option<Taken<'_>> {
        let mut batch = loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            let courteous_until = match self.take(batching.events, bulk_most) {
                Ok(batch) => break batch,
                Err(until) => until,
            };
            if self.is_finished() {
                // Another worker may be waiting for the same news.
                self.filled.notify_one();
                return None;
            }
            match courteous_until {
                None => filled.await,
                Some(until) => {
                    let _ = tokio::time::timeout_at(until, filled).await;
                }
            }
        };
        let most = if batch.lane == Lane::Bulk { batching.events.min(bulk_most) } else { batching.events };
        if batch.events.len() < most && !batching.linger.is_zero() {
            tokio::time::sleep(batching.linger).await;
            batch.events.extend(self.drain(batch.lane, most - batch.events.len()));
        }
        Some(batch)
    }

    /// Refuses further events; what waits can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_waiters();
        self.filled.notify_one();
    }

    /// Whether nothing more will come.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Whether nothing waits and nothing more will come, both seen at one moment.
    fn is_finished(&self) -> bool {
        let waiting = self.lock();
        waiting.closed && waiting.interactive.is_empty() && waiting.bulk.is_empty()
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A batch, or until when bulk events that wait are held back, if that is so.
    fn take(&self, most: usize, bulk_most: usize) -> Result<Taken<'_>, Option<Instant>> {
        let now = Instant::now();
        let (lane, most) = {
            let mut waiting = self.lock();
            let has_bulk = !waiting.bulk.is_empty();
            let may_be_due = has_bulk && waiting.bulk_at_work < self.bulk_workers;
            let bulk_is_due = may_be_due && waiting.interactive_in_a_row >= BULK_EVERY;
            if !waiting.interactive.is_empty() && !bulk_is_due {
                waiting.interactive_in_a_row += 1;
                waiting.interactive_at = Some(now);
                (Lane::Interactive, most)
            } else if has_bulk {
                let courteous_until = waiting.courteous_until(now);
                let held_back = |until| waiting.held_back_until(until, now, self.bulk_workers);
                if let Some(until) = courteous_until.and_then(held_back).filter(|_| !bulk_is_due) {
                    return Err(Some(until));
                }
                waiting.interactive_in_a_row = 0;
                waiting.bulk_at_work += 1;
                (Lane::Bulk, if courteous_until.is_some() { 1 } else { most.min(bulk_most) })
            } else {
                return Err(None);
            }
        };
        // From here on a bulk batch is counted, also if another worker was faster and it is empty.
        let taken = Taken { events: self.drain(lane, most), lane, at: now, queue: self };
        if taken.events.is_empty() { Err(None) } else { Ok(taken) }
    }

    /// Up to `most` events of a lane.
    fn drain(&self, lane: Lane, most: usize) -> Vec<Event> {
        let mut waiting = self.lock();
        let batch: Vec<Event> = match lane {
            Lane::Interactive => {
                let count = most.min(waiting.interactive.len());
                waiting.interactive.drain(..count).map(|(event, _)| event).collect()
            }
            Lane::Bulk => {
                let count = most.min(waiting.bulk.len());
                waiting.bulk.drain(..count).map(|(event, ..)| event).collect()
            }
        };
        let more = !waiting.interactive.is_empty() || !waiting.bulk.is_empty();
        drop(waiting);
        if batch.is_empty() {
            return batch;
        }
        self.length.fetch_sub(batch.len(), Ordering::Relaxed);
        let size: usize = batch.iter().map(|event| event.payload.resident_bytes()).sum();
        self.bytes.fetch_sub(size, Ordering::Relaxed);
        if more {
            self.filled.notify_one();
        }
        batch
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
