//! The budget for decoded pixels: all pictures of a process together, from decoding to the end of their last stage.
//!
//! Bulk pictures take at most half. Only the stage that decodes waits for room, and never while it holds any: whoever makes
//! one picture of another must hand the room on instead of asking for more, or two of them could wait for each other.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{ByteSize, DEFAULT_MEMORY};
use crate::envelope::Lane;
use crate::fault::Rejection;

/// Bytes are counted in units of this size, because a semaphore counts in 32 bits.
const UNIT: usize = 1 << 10;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Pixels {
    all: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    bytes: ByteSize,
}

/// The room of one picture; freed when dropped.
#[derive(Debug)]
pub struct PixelRoom {
    all: OwnedSemaphorePermit,
    bulk: Option<OwnedSemaphorePermit>,
}

impl Default for Pixels {
    fn default() -> Self {
        Self::new(ByteSize(DEFAULT_MEMORY.0 / 4))
    }
}

impl Pixels {
    /// Room for `bytes`.
    #[must_use]
    pub fn new(bytes: ByteSize) -> Self {
        let units = (bytes.as_usize() / UNIT).clamp(2, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { all: Arc::new(Semaphore::new(units)), bulk: Arc::new(Semaphore::new(units / 2)), bytes }
    }

    /// Waits for room. A bulk picture larger than half takes all of the half.
    ///
    /// # Errors
    /// 413 if a picture needs more than all there is.
    pub async fn reserve(&self, lane: Lane, bytes: u64) -> Result<PixelRoom, Rejection> {
        if bytes > self.bytes.0 {
            let detail = format!(
                "decoding the picture takes {} MiB, this service has {} for all pictures: send it smaller",
                bytes >> 20,
                self.bytes
            );
            return Err(Rejection::too_large("image_too_much_memory", detail));
        }
        let units = u32::try_from(bytes.div_ceil(UNIT as u64)).unwrap_or(u32::MAX);
        let half = u32::try_from(self.bytes.as_usize() / UNIT / 2).unwrap_or(u32::MAX).max(1);
        let closed = |_| Rejection::internal("the budget for pixels is closed");
        let bulk = match lane {
            Lane::Interactive => None,
            Lane::Bulk => Some(Arc::clone(&self.bulk).acquire_many_owned(units.min(half)).await.map_err(closed)?),
        };
        let all = Arc::clone(&self.all).acquire_many_owned(units).await.map_err(closed)?;
        Ok(PixelRoom { all, bulk })
    }

    /// Bytes taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.bytes.0.saturating_sub((self.all.available_permits() * UNIT) as u64)
    }
}

impl PixelRoom {
    /// Gives back what a finished picture does not need.
    pub fn shrink_to(&mut self, bytes: usize) {
        let units = bytes.div_ceil(UNIT);
        let excess = self.all.num_permits().saturating_sub(units);
        drop(self.all.split(excess));
        if let Some(bulk) = &mut self.bulk {
            let excess = bulk.num_permits().saturating_sub(units);
            drop(bulk.split(excess));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn bulk_pictures_leave_half_to_the_others() {
        let pixels = Pixels::new(ByteSize(100 << 10));
        let bulk = pixels.reserve(Lane::Bulk, 60 << 10).await.unwrap();
        assert!(pixels.reserve(Lane::Bulk, 1 << 10).now_or_never().is_none());
        let other = pixels.reserve(Lane::Interactive, 40 << 10).await.unwrap();
        assert!(pixels.reserve(Lane::Interactive, 1 << 10).now_or_never().is_none());
        drop((bulk, other));
        assert_eq!(pixels.taken(), 0);
    }

    #[tokio::test]
    async fn a_finished_picture_gives_back_what_decoding_took() {
        let pixels = Pixels::new(ByteSize(100 << 10));
        let mut room = pixels.reserve(Lane::Bulk, 50 << 10).await.unwrap();
        room.shrink_to(10 << 10);
        assert_eq!(pixels.taken(), 10 << 10);
        assert!(pixels.reserve(Lane::Bulk, 40 << 10).now_or_never().is_some());
        assert_eq!(pixels.reserve(Lane::Interactive, 101 << 10).await.unwrap_err().status, 413);
    }
}
