//! A counting semaphore that can be overdrawn. Units taken beyond the limit are a debt: units that are given back pay the debt
//! first, and only then go to waiters.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// A semaphore with a limit and a debt. The units in use are at most the limit plus the debt.
pub struct Account {
    free: Arc<Semaphore>,
    limit: usize,
    /// Units in use beyond the limit.
    debt: Mutex<usize>,
}

impl Account {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(limit)), limit, debt: Mutex::default() })
    }

    /// Waits until there are `units`, in the order of arrival. Never returns for more than the limit.
    pub async fn wait(self: &Arc<Self>, units: u32) -> Result<Holding, AcquireError> {
        let permit = Arc::clone(&self.free).acquire_many_owned(units).await?;
        Ok(Holding { account: Arc::clone(self), permit: Some(permit), owed: 0 })
    }

    /// Takes `units` if there are so many now.
    pub fn take(self: &Arc<Self>, units: u32) -> Option<Holding> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(units).ok()?;
        Some(Holding { account: Arc::clone(self), permit: Some(permit), owed: 0 })
    }

    /// Takes `units` without waiting: those that are free, and owes the others.
    pub fn take_or_owe(self: &Arc<Self>, units: u32) -> Holding {
        // Others may take what was free just now; what is still missing then is owed.
        let free = u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX).min(units);
        let mut holding = self.take(free).unwrap_or(Holding { account: Arc::clone(self), permit: None, owed: 0 });
        holding.owed = units as usize - holding.units();
        *self.debt() += holding.owed;
        holding
    }

    /// Units that may be in use without an overdraft.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Units in use, overdrawn ones included.
    pub fn used(&self) -> usize {
        self.limit.saturating_sub(self.free.available_permits()) + *self.debt()
    }

    fn debt(&self) -> MutexGuard<'_, usize> {
        self.debt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Units in use; given back when dropped.
pub struct Holding {
    account: Arc<Account>,
    permit: Option<OwnedSemaphorePermit>,
    /// Units taken without a permit. Units that others gave back may have paid for them since.
    owed: usize,
}

impl Holding {
    pub fn units(&self) -> usize {
        self.owed + self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Gives back all units beyond `units`.
    pub fn shrink_to(&mut self, units: usize) {
        let excess = self.units().saturating_sub(units);
        let mut debt = self.account.debt();
        let owed = excess.min(self.owed);
        self.owed -= owed;
        let unpaid = owed.min(*debt);
        *debt -= unpaid;
        // The rest was paid by permits that others gave back, so it is free again.
        self.account.free.add_permits(owed - unpaid);
        let Some(permit) = &mut self.permit else { return };
        let paying = (excess - owed).min(*debt);
        if let Some(paying) = permit.split(paying) {
            *debt -= paying.num_permits();
            paying.forget();
        }
        drop(permit.split(excess - owed - paying));
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn what_is_overdrawn_is_counted_as_used() {
        let account = Account::new(10);
        let (first, second) = (account.take_or_owe(8), account.take_or_owe(5));
        assert_eq!(account.used(), 13);
        drop((first, second));
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn only_what_is_missing_is_owed() {
        let account = Account::new(10);
        let (first, second) = (account.take_or_owe(8), account.take_or_owe(5));
        assert!(account.take(1).is_none(), "the free two were taken before any was owed");
        drop(second);
        assert!(account.take(2).is_some());
        drop(first);
        assert!(account.take(10).is_some());
    }

    #[tokio::test]
    async fn a_waiter_gets_nothing_before_the_debt_is_paid() {
        let account = Account::new(10);
        let (first, second) = (account.take_or_owe(10), account.take_or_owe(10));
        let mut waiting = std::pin::pin!(account.wait(1));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(second);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn the_limit_is_what_it_was_in_whichever_order_units_come_back() {
        let account = Account::new(10);
        let (permit, owed) = (account.take_or_owe(10), account.take_or_owe(7));
        drop(owed);
        drop(permit);
        assert!(account.take(10).is_some());
        let (permit, owed) = (account.take_or_owe(10), account.take_or_owe(7));
        drop(permit);
        assert!(account.take(3).is_some() && account.take(4).is_none());
        drop(owed);
        assert!(account.take(10).is_some() && account.take(11).is_none());
    }

    #[test]
    fn shrinking_gives_back_what_is_too_much() {
        let account = Account::new(10);
        let mut holding = account.take_or_owe(8);
        holding.shrink_to(3);
        assert_eq!((holding.units(), account.used()), (3, 3));
        holding.shrink_to(5);
        assert_eq!(holding.units(), 3);
    }
}
