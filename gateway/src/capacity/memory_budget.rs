//! The memory budget: bounds the sum of the bodies and results that must be in memory whole.
//!
//! A body takes its share as it comes and has it for as long as its client takes to send it. Only one body at a time
//! may have more than a quarter, and however large it is, it leaves a quarter to the others: a slow client cannot keep
//! everybody waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// One permit of the semaphore, in bytes.
const UNIT: u64 = 1 << 10;

/// Shared by all requests.
pub struct MemoryBudget {
    units: Arc<Semaphore>,
    all: u32,
    /// Held by the one body that may have more than a quarter.
    giant: Arc<Semaphore>,
    /// How long a request waits for its share before it is refused.
    timeout: Duration,
}

impl MemoryBudget {
    /// A budget of `bytes`; a request waits at most `timeout` for its share.
    pub fn new(bytes: u64, timeout: Duration) -> Self {
        let all = units(bytes);
        Self { units: Arc::new(Semaphore::new(all as usize)), all, giant: Arc::new(Semaphore::new(1)), timeout }
    }

    /// Waits for `bytes` of the budget, or for all of it if they are more. Dropping the permit returns them.
    ///
    /// # Errors
    /// 503 after the timeout.
    pub async fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Problem> {
        self.take(&self.units, units(bytes).min(self.all)).await
    }

    /// The share of a body that has not come yet: it is empty.
    pub fn share(&self) -> MemoryShare<'_> {
        MemoryShare { budget: self, permit: None, giant: None }
    }

    async fn take(&self, of: &Arc<Semaphore>, permits: u32) -> Result<OwnedSemaphorePermit, Problem> {
        match tokio::time::timeout(self.timeout, Arc::clone(of).acquire_many_owned(permits)).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Problem::unavailable(
                "memory_full",
                "too many large bodies are being read at once; try again later",
            )),
        }
    }
}

/// One body's share of the budget; returned when it is dropped.
pub struct MemoryShare<'b> {
    budget: &'b MemoryBudget,
    permit: Option<OwnedSemaphorePermit>,
    giant: Option<OwnedSemaphorePermit>,
}

impl MemoryShare<'_> {
    /// Grows to at least `bytes`, or to three quarters of the budget if they are more.
    ///
    /// # Errors
    /// 503 after the timeout.
    pub async fn grow(&mut self, bytes: u64) -> Result<(), Problem> {
        let budget = self.budget;
        let quarter = budget.all / 4;
        let wanted = units(bytes).min((budget.all - quarter).max(1));
        let has = self.permit.as_ref().map_or(0, units_of);
        if wanted <= has {
            return Ok(());
        }
        if wanted > quarter && self.giant.is_none() {
            self.giant = Some(budget.take(&budget.giant, 1).await?);
        }
        let more = budget.take(&budget.units, wanted - has).await?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

fn units_of(permit: &OwnedSemaphorePermit) -> u32 {
    u32::try_from(permit.num_permits()).unwrap_or(u32::MAX)
}

fn units(bytes: u64) -> u32 {
    let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(most).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_reserved_is_missing_until_it_returns() {
        let budget = MemoryBudget::new(10 << 10, Duration::from_millis(5));
        let most = budget.reserve(8 << 10).await.unwrap();
        assert_eq!(budget.reserve(4 << 10).await.unwrap_err().status().as_u16(), 503);
        drop(most);
        drop(budget.reserve(1 << 30).await.unwrap());
    }

    #[tokio::test]
    async fn one_giant_at_a_time_leaves_a_quarter_to_the_others() {
        let budget = MemoryBudget::new(16 << 10, Duration::from_millis(5));
        let (mut first, mut second, mut small) = (budget.share(), budget.share(), budget.share());
        first.grow(6 << 10).await.unwrap();
        second.grow(2 << 10).await.unwrap();
        assert_eq!(second.grow(5 << 10).await.unwrap_err().status().as_u16(), 503);
        first.grow(1 << 30).await.unwrap();
        small.grow(2 << 10).await.unwrap();
        assert_eq!(small.grow(3 << 10).await.unwrap_err().status().as_u16(), 503);
        drop(first);
        second.grow(14 << 10).await.unwrap();
    }
}
