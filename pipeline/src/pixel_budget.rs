//! The pixel budget: memory for decoded images, one for all flows of a process.
//!
//! An image takes room before its pixels exist, and gives it back when it is dropped. Bulk images take at most half. No task
//! waits for room while it holds any, so that no two can wait for each other:
//!
//! - An operator that makes images of other data (`decode`) waits with no image in its hands: [`PixelBudget::reserve`].
//! - An operator that makes an image of another one holds that one, and so does not wait
//!   ([`Image::derive`](crate::Image::derive)). If no room is free, the budget is overdrawn, and images that wait get room
//!   only after the overdraft is paid. The first image gives its room back as soon as the batch has ended, so the overdraft
//!   is at most the images that such stages work on.
//! - The engine makes images of bytes that come over a durable edge. It waits before it fetches the bytes, with no image of
//!   the batch in its hands. But images before the edge wait, with their room, while the queue behind it is full. So each
//!   stage behind an edge may overdraw for one image at a time: otherwise a full budget and a full queue were a deadlock.

use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::config::{ByteSize, DEFAULT_MEMORY};
use crate::envelope::Lane;
use crate::fault::Rejection;
use crate::overdraft::{Account, Holding};

/// Bytes are counted in units of this size, because a semaphore counts in 32 bits.
const UNIT: usize = 1 << 10;

/// See the module. Clones share the budget.
#[derive(Clone)]
pub struct PixelBudget {
    all: Arc<Account>,
    bulk: Arc<Account>,
    bytes: ByteSize,
}

/// The room of one image; given back when dropped.
pub struct PixelRoom {
    budget: PixelBudget,
    lane: Lane,
    all: Holding,
    bulk: Option<Holding>,
    /// Held by an image that was let in over the budget, and by those derived from it.
    passage: Option<Arc<OwnedSemaphorePermit>>,
}

impl std::fmt::Debug for PixelRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PixelRoom({} KiB)", self.all.units())
    }
}

impl Default for PixelBudget {
    fn default() -> Self {
        Self::new(ByteSize(DEFAULT_MEMORY.0 / 4))
    }
}

/// Lets one image of a stage in over the budget.
pub(crate) type Passage = Arc<Semaphore>;

impl PixelBudget {
    /// Room for `bytes`.
    #[must_use]
    pub fn new(bytes: ByteSize) -> Self {
        let units = (bytes.as_usize() / UNIT).clamp(2, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { all: Account::new(units), bulk: Account::new(units / 2), bytes }
    }

    /// Waits for room. A bulk image larger than half of the budget takes all of the half. Call it with no image in hand.
    ///
    /// # Errors
    /// 413 if the image needs more than the whole budget.
    pub async fn reserve(&self, lane: Lane, bytes: u64) -> Result<PixelRoom, Rejection> {
        self.check(bytes)?;
        let (units, of_bulk) = self.units(bytes);
        let closed = |_: AcquireError| Rejection::internal("the pixel budget is closed");
        let bulk = match lane {
            Lane::Interactive => None,
            Lane::Bulk => Some(self.bulk.wait(of_bulk).await.map_err(closed)?),
        };
        let all = self.all.wait(units).await.map_err(closed)?;
        Ok(self.room(lane, all, bulk))
    }

    /// Room if there is some now.
    pub(crate) fn try_reserve(&self, lane: Lane, bytes: u64) -> Option<PixelRoom> {
        self.check(bytes).ok()?;
        let (units, of_bulk) = self.units(bytes);
        let bulk = match lane {
            Lane::Interactive => None,
            Lane::Bulk => Some(self.bulk.take(of_bulk)?),
        };
        Some(self.room(lane, self.all.take(units)?, bulk))
    }

    /// Waits for room for an image from a durable edge, or for the passage of its stage, and then overdraws.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub(crate) async fn readmit(&self, lane: Lane, bytes: u64, passage: &Passage) -> Result<PixelRoom, Rejection> {
        tokio::select! {
            biased;
            room = self.reserve(lane, bytes) => room,
            Ok(passage) = Arc::clone(passage).acquire_owned() => {
                Ok(PixelRoom { passage: Some(Arc::new(passage)), ..self.overdraw(lane, bytes) })
            }
        }
    }

    fn overdraw(&self, lane: Lane, bytes: u64) -> PixelRoom {
        let (units, of_bulk) = self.units(bytes);
        let bulk = (lane == Lane::Bulk).then(|| self.bulk.take_or_owe(of_bulk));
        self.room(lane, self.all.take_or_owe(units), bulk)
    }

    fn room(&self, lane: Lane, all: Holding, bulk: Option<Holding>) -> PixelRoom {
        PixelRoom { budget: self.clone(), lane, all, bulk, passage: None }
    }

    /// Units of the whole budget and of its half for bulk images.
    fn units(&self, bytes: u64) -> (u32, u32) {
        let most = |account: &Account| u32::try_from(account.limit()).unwrap_or(u32::MAX);
        let units = u32::try_from(bytes.div_ceil(UNIT as u64)).unwrap_or(u32::MAX);
        (units.min(most(&self.all)), units.min(most(&self.bulk)))
    }

    fn check(&self, bytes: u64) -> Result<(), Rejection> {
        if bytes <= self.bytes.0 {
            return Ok(());
        }
        let detail = format!(
            "the image takes {} MiB of memory, all images of this service share {}: send a smaller one",
            bytes >> 20,
            self.bytes
        );
        Err(Rejection::too_large("image_too_much_memory", detail))
    }

    /// Bytes in use; more than the budget where it is overdrawn.
    #[must_use]
    pub fn taken(&self) -> u64 {
        (self.all.used() * UNIT) as u64
    }
}

impl PixelRoom {
    /// Gives back what the finished image does not need.
    pub fn shrink_to(&mut self, bytes: usize) {
        let units = bytes.div_ceil(UNIT);
        self.all.shrink_to(units);
        if let Some(bulk) = &mut self.bulk {
            bulk.shrink_to(units);
        }
    }

    /// Room for an image that is made of this one's, without waiting.
    ///
    /// # Errors
    /// 413 if it needs more than the whole budget.
    pub(crate) fn derive(&self, bytes: usize) -> Result<Self, Rejection> {
        self.budget.check(bytes as u64)?;
        Ok(Self { passage: self.passage.clone(), ..self.budget.overdraw(self.lane, bytes as u64) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const KIB: u64 = 1 << 10;

    fn budget() -> PixelBudget {
        PixelBudget::new(ByteSize(100 * KIB))
    }

    #[tokio::test]
    async fn bulk_images_leave_half_to_the_others() {
        let pixels = budget();
        let bulk = pixels.reserve(Lane::Bulk, 60 << 10).await.unwrap();
        assert!(pixels.reserve(Lane::Bulk, 1 << 10).now_or_never().is_none());
        let other = pixels.reserve(Lane::Interactive, 40 << 10).await.unwrap();
        assert!(pixels.reserve(Lane::Interactive, 1 << 10).now_or_never().is_none());
        drop((bulk, other));
        assert_eq!(pixels.taken(), 0);
    }

    #[tokio::test]
    async fn a_finished_image_gives_back_what_decoding_took() {
        let pixels = budget();
        let mut room = pixels.reserve(Lane::Bulk, 50 << 10).await.unwrap();
        room.shrink_to(10 << 10);
        assert_eq!(pixels.taken(), 10 << 10);
        assert!(pixels.reserve(Lane::Bulk, 40 << 10).now_or_never().is_some());
        assert_eq!(pixels.reserve(Lane::Interactive, 101 << 10).await.unwrap_err().status, 413);
    }

    #[tokio::test]
    async fn a_derived_image_never_waits() {
        let pixels = budget();
        let parent = pixels.reserve(Lane::Interactive, 100 * KIB).await.unwrap();
        let derived = parent.derive(100 << 10).unwrap();
        assert_eq!(pixels.taken(), 200 * KIB);
        drop(parent);
        assert_eq!(pixels.taken(), 100 * KIB);
        assert!(pixels.reserve(Lane::Interactive, KIB).now_or_never().is_none());
        drop(derived);
        assert_eq!(pixels.taken(), 0);
    }

    #[tokio::test]
    async fn images_derived_of_bulk_images_leave_half_to_the_others() {
        let pixels = budget();
        let parent = pixels.reserve(Lane::Bulk, 50 * KIB).await.unwrap();
        let _derived = parent.derive(50 << 10).unwrap();
        drop(parent);
        assert!(pixels.reserve(Lane::Bulk, KIB).now_or_never().is_none());
        assert!(pixels.reserve(Lane::Interactive, 50 * KIB).now_or_never().is_some());
    }

    #[tokio::test]
    async fn an_image_larger_than_the_budget_is_not_derived() {
        let parent = budget().reserve(Lane::Interactive, KIB).await.unwrap();
        assert_eq!(parent.derive(101 << 10).unwrap_err().status, 413);
    }

    #[tokio::test]
    async fn behind_a_durable_edge_one_image_passes_a_full_budget() {
        let (pixels, passage) = (budget(), Arc::new(Semaphore::new(1)));
        let _full = pixels.reserve(Lane::Interactive, 100 * KIB).await.unwrap();
        let first = pixels.readmit(Lane::Bulk, 60 * KIB, &passage).now_or_never().unwrap().unwrap();
        assert!(pixels.readmit(Lane::Bulk, KIB, &passage).now_or_never().is_none());
        let derived = first.derive(KIB as usize).unwrap();
        drop(first);
        assert!(
            pixels.readmit(Lane::Bulk, KIB, &passage).now_or_never().is_none(),
            "the derived image still has the passage"
        );
        drop(derived);
        assert!(pixels.readmit(Lane::Bulk, KIB, &passage).now_or_never().is_some());
    }

    #[tokio::test]
    async fn behind_a_durable_edge_free_room_is_taken_first() {
        let (pixels, passage) = (budget(), Arc::new(Semaphore::new(1)));
        let _room = pixels.readmit(Lane::Interactive, 60 * KIB, &passage).await.unwrap();
        assert_eq!(passage.available_permits(), 1);
    }
}
