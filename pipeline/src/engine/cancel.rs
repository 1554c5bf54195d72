//! Requests that were given up: tells those at work, and remembers the others until their events come.
//!
//! Best effort by design. The cancelled request has its terminal result already; what is missed here costs work whose
//! result is refused, nothing else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::names::RequestId;

/// Cancelled requests remembered for events that are still in the broker; the oldest are forgotten.
const REMEMBERED: usize = 10_000;

/// See the module. One per process, shared by its flows.
#[derive(Default)]
pub struct Cancellations {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: HashMap<RequestId, CancellationToken>,
    known: HashSet<RequestId>,
    oldest_first: VecDeque<RequestId>,
}

impl Cancellations {
    /// The token of a request whose event was delivered; cancelled already if the word came first.
    pub fn begin(&self, request: &RequestId) -> CancellationToken {
        let mut state = self.lock();
        let token = CancellationToken::new();
        if state.known.contains(request) {
            token.cancel();
        }
        state.live.insert(request.clone(), token.clone());
        token
    }

    /// The request's event is settled.
    pub fn end(&self, request: &RequestId) {
        self.lock().live.remove(request);
    }

    /// A request was given up.
    pub fn cancel(&self, request: RequestId) {
        let mut state = self.lock();
        if let Some(token) = state.live.get(&request) {
            token.cancel();
            return;
        }
        if state.known.insert(request.clone()) {
            state.oldest_first.push_back(request);
        }
        if state.oldest_first.len() > REMEMBERED
            && let Some(oldest) = state.oldest_first.pop_front()
        {
            state.known.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_may_come_before_the_event_and_memory_is_bounded() {
        let cancellations = Cancellations::default();
        let id = |n: usize| RequestId::new(&format!("r{n}")).unwrap();
        cancellations.cancel(id(0));
        assert!(cancellations.begin(&id(0)).is_cancelled());
        let token = cancellations.begin(&id(1));
        assert!(!token.is_cancelled());
        cancellations.cancel(id(1));
        assert!(token.is_cancelled());
        for n in 2..REMEMBERED + 100 {
            cancellations.cancel(id(n));
        }
        let state = cancellations.lock();
        assert_eq!(state.known.len(), REMEMBERED);
        assert_eq!(state.oldest_first.len(), REMEMBERED);
    }
}
