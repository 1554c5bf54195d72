//! The results of one request in order: what is stored, then what comes, without gap or repeat.
//!
//! The watch is registered before the history is read, so what is stored in between is seen twice and told apart by its
//! ordinal. When the watch ends because its reader was slow, the history is read again.
//!
//! However slow a reader is and however long the history, what is held for it is [`MOST_BYTES`] of the history and what the
//! watch's channel bounds: what is beyond is read again when it is due. Few read a history at the same time, for while
//! it is read it is held whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pipeline::{Outcome, RequestId, TransportError, Watch};

use crate::state::GatewayState;

/// Pause before a watch that ended without bringing anything is opened again.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes of results held for one reader; at least one result is.
const MOST_BYTES: usize = 128 << 10;

/// See the module.
pub struct Follower {
    state: GatewayState,
    request: RequestId,
    /// The lowest ordinal not seen yet.
    next: u32,
    /// One above the highest ordinal that is known of a result that is no terminal.
    above: u32,
    history: VecDeque<Outcome>,
    /// Whether the history goes on behind what is held of it.
    goes_on: bool,
    watch: Watch,
    /// Whether the watch brought anything since it was opened.
    alive: bool,
    ended: bool,
}

impl Follower {
    /// Follows a request that is about to be submitted: there is no history.
    pub fn fresh(state: &GatewayState, request: &RequestId) -> Self {
        Self {
            state: state.clone(),
            request: request.clone(),
            next: 0,
            above: 0,
            history: VecDeque::new(),
            goes_on: false,
            watch: state.transport.watch(request),
            alive: true,
            ended: false,
        }
    }

    /// Follows a request from its first result, which may still be to come.
    ///
    /// # Errors
    /// If the history cannot be read.
    pub async fn attach(state: &GatewayState, request: &RequestId) -> Result<Self, TransportError> {
        let mut follower = Self::fresh(state, request);
        follower.read_history().await?;
        Ok(follower)
    }

    /// Follows a request from the first result after the ordinal `after`, or `None` if nothing is known of it.
    ///
    /// # Errors
    /// If the history cannot be read.
    pub async fn resume(
        state: &GatewayState,
        request: &RequestId,
        after: Option<u32>,
    ) -> Result<Option<Self>, TransportError> {
        let mut follower = Self::fresh(state, request);
        follower.next = after.map_or(0, |after| after.saturating_add(1));
        let Some(last) = follower.read_history().await? else { return Ok(None) };
        follower.ended = last.kind.is_terminal() && follower.end_of(&last) < follower.next;
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
            let mut outcome = match self.history.pop_front() {
                Some(outcome) => outcome,
                None if self.goes_on => {
                    self.read_history().await?;
                    continue;
                }
                None => match self.watched().await {
                    Some(outcome) => {
                        self.alive = true;
                        Arc::unwrap_or_clone(outcome)
                    }
                    None => {
                        self.watch_again().await;
                        continue;
                    }
                },
            };
            if self.is_news(&mut outcome) {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    /// What the watch brings. Nothing is kept of the history meanwhile, not even its place: it may be long until then.
    async fn watched(&mut self) -> Option<Arc<Outcome>> {
        self.history = VecDeque::new();
        self.watch.outcomes.recv().await
    }

    /// The ordinal of the terminal for whoever follows: above all that were told. Each attempt counts from one, so its own
    /// may be below, and whoever resumes behind the highest would never hear of the end.
    fn end_of(&self, terminal: &Outcome) -> u32 {
        terminal.ordinal.max(self.above)
    }

    /// Whether an outcome was not seen before; notes that it was now. A terminal always is, whatever its ordinal: there is
    /// only one.
    fn is_news(&mut self, outcome: &mut Outcome) -> bool {
        if outcome.kind.is_terminal() {
            self.ended = true;
            outcome.ordinal = self.end_of(outcome);
            return true;
        }
        self.above = self.above.max(outcome.ordinal.saturating_add(1));
        if outcome.ordinal < self.next {
            return false;
        }
        self.next = outcome.ordinal + 1;
        true
    }

    /// Opens the watch again; what came in between is in the history.
    async fn watch_again(&mut self) {
        if !self.alive {
            tokio::time::sleep(PAUSE).await;
        }
        self.watch = self.state.transport.watch(&self.request);
        self.alive = false;
        self.goes_on = true;
    }

    /// Reads the history and holds the beginning of what is not seen yet; its last result.
    async fn read_history(&mut self) -> Result<Option<Outcome>, TransportError> {
        let _turn = self.state.histories.acquire().await.map_err(TransportError::unavailable)?;
        let mut outcomes = self.state.transport.outcomes(&self.request).await?;
        // The terminal last, whatever ordinal a second attempt gave it.
        outcomes.sort_by_key(|outcome| (outcome.kind.is_terminal(), outcome.ordinal));
        let last = outcomes.last().cloned();
        let told = outcomes.iter().filter(|outcome| !outcome.kind.is_terminal());
        self.above = told.map(|outcome| outcome.ordinal.saturating_add(1)).fold(self.above, u32::max);
        outcomes.retain(|outcome| outcome.kind.is_terminal() || outcome.ordinal >= self.next);
        let mut bytes = 0;
        let held = outcomes.iter().take_while(|outcome| {
            let fits = bytes < MOST_BYTES;
            bytes += held_bytes(outcome);
            fits
        });
        let held = held.count();
        self.goes_on = held < outcomes.len();
        outcomes.truncate(held);
        self.history = outcomes.into();
        Ok(last)
    }
}

/// Bytes of memory of a result's content; what is kept apart is not among them.
fn held_bytes(outcome: &Outcome) -> usize {
    match &outcome.content.body {
        pipeline::Body::Inline(bytes) => bytes.len(),
        pipeline::Body::Claim(_) => 0,
    }
}
