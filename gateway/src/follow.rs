//! The results of one request in order: what is stored, then what comes, without gap or repeat.
//!
//! The watch is registered before the history is read, so what is stored in between is seen twice and told apart by its
//! ordinal. When the watch ends because its reader was slow, the history is read again. Holds at most what the history
//! holds and what the watch's channel bounds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pipeline::{Outcome, RequestId, Transport, TransportError, Watch};

/// Pause before a watch that ended without bringing anything is opened again.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub struct Follower {
    transport: Arc<dyn Transport>,
    request: RequestId,
    /// The lowest ordinal not seen yet.
    next: u32,
    history: VecDeque<Outcome>,
    watch: Watch,
    /// Whether the watch brought anything since it was opened.
    alive: bool,
    ended: bool,
}

impl Follower {
    /// Follows a request that is about to be submitted: there is no history.
    pub fn fresh(transport: &Arc<dyn Transport>, request: &RequestId) -> Self {
        Self {
            transport: Arc::clone(transport),
            request: request.clone(),
            next: 0,
            history: VecDeque::new(),
            watch: transport.watch(request),
            alive: true,
            ended: false,
        }
    }

    /// Follows a request from its first result, which may still be to come.
    ///
    /// # Errors
    /// If the history cannot be read.
    pub async fn attach(transport: &Arc<dyn Transport>, request: &RequestId) -> Result<Self, TransportError> {
        let mut follower = Self::fresh(transport, request);
        follower.history = in_order(transport.outcomes(request).await?);
        Ok(follower)
    }

    /// Follows a request from the first result after the ordinal `after`, or `None` if nothing is known of it.
    ///
    /// # Errors
    /// If the history cannot be read.
    pub async fn resume(
        transport: &Arc<dyn Transport>,
        request: &RequestId,
        after: Option<u32>,
    ) -> Result<Option<Self>, TransportError> {
        let mut follower = Self::attach(transport, request).await?;
        if follower.history.is_empty() {
            return Ok(None);
        }
        follower.next = after.map_or(0, |after| after.saturating_add(1));
        let ended = follower.history.back().is_some_and(|last| last.kind.is_terminal() && last.ordinal < follower.next);
        follower.ended = ended;
        Ok(Some(follower))
    }

    /// Whether the terminal result was seen already.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next result, or `None` after the terminal. Cancel-safe.
    ///
    /// # Errors
    /// If the history must be read again and cannot be.
    pub async fn next(&mut self) -> Result<Option<Outcome>, TransportError> {
        while !self.ended {
            let outcome = match self.history.pop_front() {
                Some(outcome) => outcome,
                None => match self.watch.outcomes.recv().await {
                    Some(outcome) => {
                        self.alive = true;
                        Arc::unwrap_or_clone(outcome)
                    }
                    None => {
                        self.read_again().await?;
                        continue;
                    }
                },
            };
            if self.is_news(&outcome) {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    /// Whether an outcome was not seen before; notes that it was now. A terminal always is, whatever its ordinal: there is
    /// only one.
    fn is_news(&mut self, outcome: &Outcome) -> bool {
        if outcome.kind.is_terminal() {
            self.ended = true;
            return true;
        }
        if outcome.ordinal < self.next {
            return false;
        }
        self.next = outcome.ordinal + 1;
        true
    }

    async fn read_again(&mut self) -> Result<(), TransportError> {
        if !self.alive {
            tokio::time::sleep(PAUSE).await;
        }
        let watch = self.transport.watch(&self.request);
        let history = self.transport.outcomes(&self.request).await?;
        self.alive = false;
        self.watch = watch;
        self.history = in_order(history);
        Ok(())
    }
}

/// The history with its terminal last, whatever ordinal a second attempt gave it.
fn in_order(mut history: Vec<Outcome>) -> VecDeque<Outcome> {
    history.sort_by_key(|outcome| (outcome.kind.is_terminal(), outcome.ordinal));
    history.into()
}
