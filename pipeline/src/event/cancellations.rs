//! Cancelled requests: stops those in work, and remembers the others until their events arrive.
//!
//! Best effort by design. A cancelled request has its terminal result already; a cancellation that is missed here costs
//! work whose result the broker refuses, nothing else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::names::RequestId;

/// Cancelled requests remembered for events that are still in the broker; the oldest are forgotten.
const REMEMBERED: usize = 10_000;

/// The cancelled requests of a process, shared by its flows.
#[derive(Default)]
pub struct Cancellations {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Requests whose events are in work here.
    live: HashMap<RequestId, CancellationToken>,
    /// Cancelled requests whose events have not arrived; the same ids as in `oldest_first`, at most [`REMEMBERED`].
    cancelled: HashSet<RequestId>,
    oldest_first: VecDeque<RequestId>,
}

impl Cancellations {
    /// Begins the work of a request whose event was delivered; the token is cancelled already if the request is.
    pub fn begin(&self, request: &RequestId) -> CancellationToken {
        let mut state = self.lock();
        let token = CancellationToken::new();
        if state.cancelled.contains(request) {
            token.cancel();
        }
        state.live.insert(request.clone(), token.clone());
        token
    }

    /// Ends the work of a request: its event is settled.
    pub fn end(&self, request: &RequestId) {
        self.lock().live.remove(request);
    }

    /// Cancels a request: at once if it is in work, otherwise when its event is delivered.
    pub fn cancel(&self, request: RequestId) {
        let mut state = self.lock();
        if let Some(token) = state.live.get(&request) {
            token.cancel();
            return;
        }
        if state.cancelled.insert(request.clone()) {
            state.oldest_first.push_back(request);
        }
        if state.oldest_first.len() > REMEMBERED
            && let Some(oldest) = state.oldest_first.pop_front()
        {
            state.cancelled.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> RequestId {
        RequestId::new(&format!("r{n}")).unwrap()
    }

    #[test]
    fn a_cancellation_before_the_event_cancels_its_token() {
        let cancellations = Cancellations::default();
        cancellations.cancel(id(0));
        assert!(cancellations.begin(&id(0)).is_cancelled());
    }

    #[test]
    fn a_cancellation_after_the_event_cancels_its_token() {
        let cancellations = Cancellations::default();
        let token = cancellations.begin(&id(1));
        assert!(!token.is_cancelled());
        cancellations.cancel(id(1));
        assert!(token.is_cancelled());
    }

    #[test]
    fn the_oldest_cancellations_are_forgotten() {
        let cancellations = Cancellations::default();
        for n in 0..REMEMBERED + 100 {
            cancellations.cancel(id(n));
        }
        let state = cancellations.lock();
        assert_eq!(state.cancelled.len(), REMEMBERED);
        assert_eq!(state.oldest_first.len(), REMEMBERED);
        assert!(!state.cancelled.contains(&id(0)));
    }
}
