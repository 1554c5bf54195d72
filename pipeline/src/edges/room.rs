//! Room in a queue: a bound on events and on bytes. Both are semaphores, and freed when the room is dropped.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of this size, because a semaphore counts in 32 bits.
const BYTE_UNIT: usize = 1 << 10;

/// A bound on events and bytes.
pub struct Bound {
    events: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// All units of `bytes`; an event never asks for more.
    byte_units: usize,
}

impl Bound {
    pub fn new(events: usize, bytes: usize) -> Self {
        let byte_units = (bytes / BYTE_UNIT).max(1);
        Self {
            events: Arc::new(Semaphore::new(events.max(1))),
            bytes: Arc::new(Semaphore::new(byte_units)),
            byte_units,
        }
    }

    /// The units of an event of this size: at least one, at most all.
    fn units(&self, size: usize) -> u32 {
        let units = size.div_ceil(BYTE_UNIT).clamp(1, self.byte_units);
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Takes room if there is any now.
    pub fn try_room(&self, size: usize) -> Option<Room> {
        let event = Arc::clone(&self.events).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(self.units(size)).ok()?;
        Some(Room { _event: event, _bytes: bytes })
    }

    /// Waits for room, first come, first served; `None` if there will be none.
    pub async fn room(&self, size: usize) -> Option<Room> {
        let units = self.units(size);
        let event = Arc::clone(&self.events).acquire_owned().await.ok()?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(units).await.ok()?;
        Some(Room { _event: event, _bytes: bytes })
    }
}

/// The room an event takes; freed when dropped.
pub struct Room {
    _event: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}
