//! Follows the results of one request in order: first the history, then live ones, without gap or repeat.
//!
//! The watch is registered before the history is read, so a result stored in between is seen twice and recognised by
//! its ordinal. If the watch ends because its reader was slow, the history is read again.
//!
//! A fast worker's results can be stored before the gateway's own `accepted`. A follower that is read from the start
//! waits for `accepted`, for [`FIRST_TIMEOUT`] at most: it never comes if the gateway died before it stored it, or if
//! the event came from another program. What comes early is not held in memory, it is read again from the history.
//!
//! However slow a reader is and however long the history, only [`MAX_BYTES`] of the history and the bounded channel of
//! the watch are in memory for it; the rest is read again when it is due. Few histories are read at the same time,
//! because a history is in memory whole while it is read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pipeline::{Outcome, RequestId, TransportError, Watch};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use crate::state::GatewayState;

/// Pause before a watch that ended without a result is opened again.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes of results in memory for one reader, or one result if it is larger.
const MAX_BYTES: usize = 128 << 10;

/// How long results wait for `accepted`, from when the first of them was produced. The gateway stores it right after
/// the event.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether results wait for the first one, `accepted`.
#[derive(Clone, Copy)]
enum First {
    /// It was passed on, or is not waited for.
    Passed,
    /// It has not come, and no other result has.
    Awaited,
    /// Another result has come. It waits until then.
    Overdue(Instant),
}

/// See the module.
pub struct Follower {
    state: GatewayState,
    request: RequestId,
    /// The lowest ordinal not seen yet.
    next: u32,
    /// One above the highest known ordinal of a result that is not terminal.
    above: u32,
    first: First,
    history: VecDeque<Outcome>,
    /// Whether the history continues after the part that is in memory.
    more_history: bool,
    watch: Watch,
    /// Whether the watch has brought a result since it was opened.
    productive: bool,
    ended: bool,
}

impl Follower {
    /// Follows a request that is about to be submitted and has no history.
    pub fn fresh(state: &GatewayState, request: &RequestId) -> Self {
        Self {
            state: state.clone(),
            request: request.clone(),
            next: 0,
            above: 0,
            first: First::Passed,
            history: VecDeque::new(),
            more_history: false,
            watch: state.transport.watch(request),
            productive: true,
            ended: false,
        }
    }

    /// Follows a request from its first result, which may not have come yet.
    ///
    /// # Errors
    /// If the history cannot be read.
    pub async fn attach(state: &GatewayState, request: &RequestId) -> Result<Self, TransportError> {
        let mut follower = Self::fresh(state, request);
        follower.read_history().await?;
        Ok(follower)
    }

    /// Follows a request from the first result after the ordinal `after`; `None` if it has no results.
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

    /// Begins with `accepted`, also if another result was stored before it; see the module.
    pub fn accepted_first(mut self) -> Self {
        if self.next == 0 {
            self.first = First::Awaited;
        }
        self
    }

    /// Whether the terminal result was already seen.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next result, or `None` after the terminal one. Cancel-safe.
    ///
    /// # Errors
    /// If the history must be read again and cannot.
    pub async fn next(&mut self) -> Result<Option<Outcome>, TransportError> {
        while !self.ended {
            let mut outcome = match self.history.pop_front() {
                Some(outcome) => outcome,
                None if self.more_history => {
                    self.read_history().await?;
                    continue;
                }
                None => match self.watched().await {
                    Some(outcome) => {
                        self.productive = true;
                        Arc::unwrap_or_clone(outcome)
                    }
                    None => {
                        self.watch_again().await;
                        continue;
                    }
                },
            };
            if !self.is_early(&outcome) && self.is_new(&mut outcome) {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    /// The next result of the watch; `None` if the watch has ended or `accepted` did not come in time. Frees the memory of
    /// the history first, because the result may be long in coming.
    async fn watched(&mut self) -> Option<Arc<Outcome>> {
        self.history = VecDeque::new();
        let received = self.watch.outcomes.recv();
        match self.first {
            First::Overdue(until) => timeout_at(until, received).await.ok().flatten(),
            First::Passed | First::Awaited => received.await,
        }
    }

    /// Whether an outcome came before `accepted`, which is still waited for: it is in the history, which is read again
    /// once the wait is over.
    fn is_early(&mut self, outcome: &Outcome) -> bool {
        let is_first = outcome.ordinal == 0 && !outcome.kind.is_terminal();
        let until = match self.first {
            First::Passed => return false,
            First::Awaited if is_first => {
                self.first = First::Passed;
                return false;
            }
            First::Awaited => Instant::now() + FIRST_TIMEOUT.saturating_sub(age(outcome)),
            First::Overdue(until) => until,
        };
        let is_over = is_first || until <= Instant::now();
        self.first = if is_over { First::Passed } else { First::Overdue(until) };
        self.history.clear();
        self.more_history = is_over;
        !is_first
    }

    /// The ordinal under which the terminal result is delivered: above all others. Each attempt of a stage counts from
    /// one, so its own ordinal may be lower, and a client that resumes after the highest would never see the end.
    fn end_of(&self, terminal: &Outcome) -> u32 {
        terminal.ordinal.max(self.above)
    }

    /// Whether an outcome is new, and marks it as seen. A terminal one always is, whatever its ordinal: there is only
    /// one.
    fn is_new(&mut self, outcome: &mut Outcome) -> bool {
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

    /// Opens the watch again; results stored in between are in the history.
    async fn watch_again(&mut self) {
        if !self.productive {
            tokio::time::sleep(PAUSE).await;
        }
        self.watch = self.state.transport.watch(&self.request);
        self.productive = false;
        self.more_history = true;
    }

    /// Reads the history, takes the beginning of its unseen part into memory, and returns its last result.
    async fn read_history(&mut self) -> Result<Option<Outcome>, TransportError> {
        let _permit = self.state.histories.acquire().await.map_err(TransportError::unavailable)?;
        let mut outcomes = self.state.transport.outcomes(&self.request).await?;
        // The terminal result last, whatever ordinal a second attempt gave it.
        outcomes.sort_by_key(|outcome| (outcome.kind.is_terminal(), outcome.ordinal));
        let last = outcomes.last().cloned();
        let others = outcomes.iter().filter(|outcome| !outcome.kind.is_terminal());
        self.above = others.map(|outcome| outcome.ordinal.saturating_add(1)).fold(self.above, u32::max);
        outcomes.retain(|outcome| outcome.kind.is_terminal() || outcome.ordinal >= self.next);
        let mut bytes = 0;
        let fitting = outcomes.iter().take_while(|outcome| {
            let fits = bytes < MAX_BYTES;
            bytes += inline_bytes(outcome);
            fits
        });
        let count = fitting.count();
        self.more_history = count < outcomes.len();
        outcomes.truncate(count);
        self.history = outcomes.into();
        Ok(last)
    }
}

/// How long ago a result was produced; zero if its clock is ahead of ours.
fn age(outcome: &Outcome) -> Duration {
    Duration::try_from(OffsetDateTime::now_utc() - outcome.time).unwrap_or_default()
}

/// Bytes of a result's content in memory; a claim has none.
fn inline_bytes(outcome: &Outcome) -> usize {
    match &outcome.content.body {
        pipeline::Body::Inline(bytes) => bytes.len(),
        pipeline::Body::Claim(_) => 0,
    }
}

#[cfg(test)]
mod tests;
