//! Limits the events of a flow that are in flight: delivered and not yet settled.
//!
//! A place is taken before its event is pulled, so that the broker keeps what the flow has no room for. Bulk events may
//! have half of the places, so that bulk work never takes the last one. A suspect has the flow to itself.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore};

use crate::envelope::Lane;
use crate::event::{Place, Turn};

/// The places of one flow, shared by the readers of its lanes.
#[derive(Clone)]
pub struct InFlightLimit {
    /// One permit for each event of the flow.
    all: Arc<Semaphore>,
    /// One permit for each bulk event: half as many, at least one.
    bulk: Arc<Semaphore>,
    /// Held for reading by every event in flight, for writing by a suspect.
    turn: Arc<RwLock<()>>,
}

impl InFlightLimit {
    /// `events` places.
    pub fn new(events: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(events)),
            bulk: Arc::new(Semaphore::new((events / 2).max(1))),
            turn: Arc::default(),
        }
    }

    /// Waits for a place; it is freed when dropped. First come, first served within a lane.
    pub async fn acquire(&self, lane: Lane) -> Place {
        // The bulk permit first: a bulk reader that waits for one must not hold a place that an interactive event could have.
        let bulk: Option<OwnedSemaphorePermit> = match lane {
            Lane::Interactive => None,
            Lane::Bulk => Arc::clone(&self.bulk).acquire_owned().await.ok(),
        };
        Place { _bulk: bulk, _all: Arc::clone(&self.all).acquire_owned().await.ok(), turn: None }
    }

    /// Waits until no suspect is in flight; suspects wait until the turn is dropped.
    pub async fn beside_others(&self) -> Turn {
        Turn::Shared { _guard: Arc::clone(&self.turn).read_owned().await }
    }

    /// Waits until no other event is in flight; others wait until the turn is dropped.
    pub async fn alone(&self) -> Turn {
        Turn::Alone { _guard: Arc::clone(&self.turn).write_owned().await }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn bulk_events_get_half_of_the_places() {
        let limit = InFlightLimit::new(4);
        let held: Vec<_> = std::iter::from_fn(|| limit.acquire(Lane::Bulk).now_or_never()).collect();
        assert_eq!(held.len(), 2);
    }

    #[test]
    fn interactive_events_get_all_places_that_are_free() {
        let limit = InFlightLimit::new(4);
        let _bulk = limit.acquire(Lane::Bulk).now_or_never().unwrap();
        let held: Vec<_> = std::iter::from_fn(|| limit.acquire(Lane::Interactive).now_or_never()).collect();
        assert_eq!(held.len(), 3);
    }

    #[test]
    fn a_place_is_free_again_when_dropped() {
        let limit = InFlightLimit::new(1);
        drop(limit.acquire(Lane::Bulk).now_or_never().unwrap());
        assert!(limit.acquire(Lane::Interactive).now_or_never().is_some());
    }

    #[test]
    fn a_suspect_waits_for_the_others_and_they_wait_for_it() {
        let limit = InFlightLimit::new(4);
        let other = limit.beside_others().now_or_never().unwrap();
        assert!(limit.alone().now_or_never().is_none());
        drop(other);
        let _suspect = limit.alone().now_or_never().unwrap();
        assert!(limit.beside_others().now_or_never().is_none());
    }
}
