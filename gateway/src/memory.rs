//! The budget for bodies and results that must be in memory at once, so that their sum is bounded whatever clients do.

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
    /// How long a request waits for its share before it is refused.
    patience: Duration,
}

impl MemoryBudget {
    /// A budget of `bytes`, of which a request waits for its share for at most `patience`.
    pub fn new(bytes: u64, patience: Duration) -> Self {
        let all = units(bytes);
        Self { units: Arc::new(Semaphore::new(all as usize)), all, patience }
    }

    /// Waits for `bytes` of the budget; they return when the permit is dropped. More than all is all: one giant at a time.
    ///
    /// # Errors
    /// 503 if others kept it for too long.
    pub async fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Problem> {
        let wanted = units(bytes).min(self.all);
        let permit = tokio::time::timeout(self.patience, Arc::clone(&self.units).acquire_many_owned(wanted)).await;
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Problem::unavailable("memory_full", "too many large bodies are being read at once; come again")),
        }
    }
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
}
