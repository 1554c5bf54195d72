//! How much to pull: the events and bytes for which a source still has room.
//!
//! Pure arithmetic. The events in flight and requested never exceed the bound. Their bytes may by one message: an empty
//! source requests enough for the largest, or that one would never be delivered.

use pipeline::SourceBounds;

use crate::wire::cloud_event::MAX_MESSAGE;

/// Bytes that one pull must be able to deliver: more than the largest message, or the broker would never deliver that
/// one.
pub const MIN_PULL_BYTES: usize = 2 << 20;
const _: () = assert!(MIN_PULL_BYTES > MAX_MESSAGE + (64 << 10));

/// Number and bytes of the events in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub events: usize,
    pub bytes: usize,
}

/// The bounds of a source, and what was requested from the broker and has not arrived.
pub struct PullRoom {
    bounds: SourceBounds,
    requested_events: usize,
    /// Bytes that the requested events may have, at most.
    requested_bytes: usize,
}

impl PullRoom {
    /// Nothing is requested yet.
    pub fn new(bounds: SourceBounds) -> Self {
        Self { bounds, requested_events: 0, requested_bytes: 0 }
    }

    /// Whether anything is requested that has not arrived.
    pub fn is_anything_requested(&self) -> bool {
        self.requested_events > 0
    }

    /// Room that justifies a pull: a quarter of the bound.
    pub fn is_worth_a_pull(&self, events: usize) -> bool {
        events >= quarter(self.bounds.events)
    }

    /// Events that are neither in flight nor requested; 0 while the remaining bytes may not suffice for the largest
    /// message.
    pub fn events(&self, load: Load) -> usize {
        if self.bytes(load) < MIN_PULL_BYTES && (load.events > 0 || self.requested_events > 0) {
            return 0;
        }
        self.bounds.events.saturating_sub(load.events).saturating_sub(self.requested_events)
    }

    /// Bytes to allow for a pull of `events`. The bound of events must be at least 1.
    ///
    /// Half of the events' share of the bound, because an older pull may still deliver events whose sizes differ from
    /// its share.
    pub fn bytes_to_request(&self, events: usize) -> usize {
        (self.bounds.bytes / 2 / self.bounds.events * events).max(MIN_PULL_BYTES)
    }

    /// Number of events in flight at which there is room for another pull; `None` if no settlement makes room.
    pub fn wake_at(&self, load: Load) -> Option<usize> {
        if self.bytes(load) < MIN_PULL_BYTES {
            return load.events.checked_sub(1);
        }
        self.bounds.events.checked_sub(self.requested_events + quarter(self.bounds.events))
    }

    /// Notes a pull.
    pub fn request(&mut self, events: usize, bytes: usize) {
        if self.requested_events == 0 {
            self.requested_bytes = 0;
        }
        self.requested_events += events;
        self.requested_bytes += bytes;
    }

    /// Notes that one requested event arrived.
    pub fn arrive(&mut self) {
        self.requested_bytes -= self.requested_bytes / self.requested_events.max(1);
        self.requested_events = self.requested_events.saturating_sub(1);
    }

    /// Notes that the broker will not deliver this many of the requested events.
    pub fn expire(&mut self, events: usize) {
        self.requested_events = self.requested_events.saturating_sub(events);
    }

    /// Forgets what was requested.
    pub fn forget(&mut self) {
        self.requested_events = 0;
    }

    /// Bytes that are neither in flight nor requested.
    fn bytes(&self, load: Load) -> usize {
        let requested = if self.requested_events > 0 { self.requested_bytes } else { 0 };
        self.bounds.bytes.saturating_sub(load.bytes).saturating_sub(requested)
    }
}

fn quarter(events: usize) -> usize {
    (events / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MIB: usize = 1 << 20;

    fn room(events: usize, bytes: usize) -> PullRoom {
        let ack_wait = Duration::from_secs(1);
        PullRoom::new(SourceBounds { events, bytes, ordered: false, ack_wait, max_deliver: 1 })
    }

    fn load(events: usize, bytes: usize) -> Load {
        Load { events, bytes }
    }

    #[test]
    fn in_flight_and_requested_events_take_room() {
        let mut room = room(8, 64 * MIB);
        assert_eq!(room.events(load(0, 0)), 8);
        room.request(3, 0);
        assert_eq!(room.events(load(4, 0)), 1);
    }

    #[test]
    fn there_is_no_room_while_the_largest_message_would_not_fit() {
        assert_eq!(room(8, 3 * MIB).events(load(1, 2 * MIB)), 0);
    }

    #[test]
    fn an_empty_source_has_room_whatever_its_bytes() {
        assert_eq!(room(8, MIB).events(load(0, 0)), 8);
    }

    #[test]
    fn a_quarter_of_the_bound_is_worth_a_pull() {
        let room = room(8, 64 * MIB);
        assert!(!room.is_worth_a_pull(1));
        assert!(room.is_worth_a_pull(2));
    }

    #[test]
    fn a_pull_may_deliver_half_of_its_share_of_the_bytes() {
        assert_eq!(room(8, 64 * MIB).bytes_to_request(8), 32 * MIB);
    }

    #[test]
    fn a_pull_always_has_bytes_for_the_largest_message() {
        assert_eq!(room(8, 8 * MIB).bytes_to_request(1), MIN_PULL_BYTES);
    }

    #[test]
    fn an_event_that_arrives_frees_its_share_of_the_requested_bytes() {
        let mut room = room(8, 64 * MIB);
        room.request(4, 8 * MIB);
        room.arrive();
        assert_eq!((room.requested_events, room.requested_bytes), (3, 6 * MIB));
    }

    #[test]
    fn an_expired_pull_leaves_nothing_requested() {
        let mut room = room(8, 64 * MIB);
        room.request(4, 8 * MIB);
        room.expire(usize::MAX);
        assert!(!room.is_anything_requested());
    }

    #[test]
    fn the_next_pull_is_made_when_a_quarter_is_free() {
        let mut room = room(8, 64 * MIB);
        assert_eq!(room.wake_at(load(8, 0)), Some(6));
        room.request(3, 0);
        assert_eq!(room.wake_at(load(5, 0)), Some(3));
    }

    #[test]
    fn short_of_bytes_every_settlement_is_looked_at() {
        assert_eq!(room(8, 3 * MIB).wake_at(load(2, 2 * MIB)), Some(1));
    }

    #[test]
    fn no_settlement_makes_room_while_everything_is_requested() {
        let mut room = room(8, 64 * MIB);
        room.request(8, 0);
        assert_eq!(room.wake_at(load(0, 0)), None);
    }
}
