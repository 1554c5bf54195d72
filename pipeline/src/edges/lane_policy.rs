//! Lane policy: which lane a worker takes from next, and when bulk work keeps out of the way.
//!
//! Interactive events go first. While interactive events keep coming, bulk work leaves one worker free where there are
//! several, goes one event at a time, and after each rests for as long as it took: so the next interactive event finds a
//! free worker every other time, and waits for half a bulk event otherwise. After [`BULK_EVERY`] interactive batches in a
//! row a waiting bulk event goes first, so that bulk work is slow, not dead.
//!
//! Everything here is a function of values and of the time that is passed in. The queue stores, this decides.

use std::time::Duration;

use tokio::time::Instant;

/// Bulk work keeps out of the way while an interactive batch was taken this recently.
const COURTESY: Duration = Duration::from_secs(1);

/// Interactive batches in a row after which a waiting bulk event goes first.
const BULK_EVERY: u32 = 8;

/// A bulk batch occupies a worker for about this long at most, because an interactive event may come meanwhile.
pub const BULK_SLICE: Duration = Duration::from_millis(50);

/// Which lanes have events that wait.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub interactive: bool,
    pub bulk: bool,
}

/// What a worker that asks for a batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take interactive events.
    Interactive,
    /// Take bulk events; just one if interactive events keep coming.
    Bulk { single: bool },
    /// Only bulk events wait, and they are held back: ask again at this time, or when an event arrives.
    HoldBulkUntil(Instant),
    /// Nothing waits.
    Idle,
}

/// The policy of one queue. Its owner reports every batch: begun by [`next`](Self::next), ended by
/// [`bulk_done`](Self::bulk_done).
#[derive(Debug)]
pub struct LanePolicy {
    /// Workers that may have bulk work while interactive work comes: all but one, and at least one.
    bulk_workers: usize,
    /// Interactive batches taken since the last bulk batch.
    interactive_in_a_row: u32,
    /// When an interactive batch was last taken.
    interactive_at: Option<Instant>,
    /// Bulk batches in work; each was counted by `next` and is counted off by `bulk_done`.
    bulk_at_work: usize,
    /// End of the rest that follows the last bulk batch; counts only while interactive work comes.
    bulk_rests_until: Option<Instant>,
}

impl LanePolicy {
    /// The policy of a stage with so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            bulk_workers: workers.saturating_sub(1).max(1),
            interactive_in_a_row: 0,
            interactive_at: None,
            bulk_at_work: 0,
            bulk_rests_until: None,
        }
    }

    /// Decides for one worker and counts its batch as begun. The caller takes at least one event of the lane, under the
    /// same lock as this call.
    pub fn next(&mut self, waiting: Waiting, now: Instant) -> Decision {
        let bulk_is_due = waiting.bulk && self.bulk_is_due();
        if waiting.interactive && !bulk_is_due {
            self.interactive_in_a_row += 1;
            self.interactive_at = Some(now);
            return Decision::Interactive;
        }
        if !waiting.bulk {
            return Decision::Idle;
        }
        let courteous_until = self.courteous_until(now);
        if !bulk_is_due && let Some(until) = courteous_until.and_then(|until| self.held_back_until(until, now)) {
            return Decision::HoldBulkUntil(until);
        }
        self.interactive_in_a_row = 0;
        self.bulk_at_work += 1;
        Decision::Bulk { single: courteous_until.is_some() }
    }

    /// Counts a bulk batch that began at `begun` as ended: bulk work now rests for as long as the batch took.
    pub fn bulk_done(&mut self, begun: Instant, now: Instant) {
        self.bulk_at_work -= 1;
        self.bulk_rests_until = Some(now + (now - begun));
    }

    /// Whether a waiting bulk event goes before interactive ones. It never takes the worker that bulk work leaves free.
    fn bulk_is_due(&self) -> bool {
        self.bulk_at_work < self.bulk_workers && self.interactive_in_a_row >= BULK_EVERY
    }

    /// Until when bulk work keeps out of the way; `None` if no interactive batch was taken recently.
    fn courteous_until(&self, now: Instant) -> Option<Instant> {
        self.interactive_at.map(|at| at + COURTESY).filter(|until| now < *until)
    }

    /// Until when a bulk event waits although a worker asks; `None` if it may go.
    fn held_back_until(&self, courteous_until: Instant, now: Instant) -> Option<Instant> {
        if self.bulk_at_work >= self.bulk_workers {
            return Some(courteous_until);
        }
        self.bulk_rests_until.filter(|until| now < *until).map(|until| until.min(courteous_until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Waiting = Waiting { interactive: true, bulk: true };
    const BULK: Waiting = Waiting { interactive: false, bulk: true };
    const INTERACTIVE: Waiting = Waiting { interactive: true, bulk: false };
    const NONE: Waiting = Waiting { interactive: false, bulk: false };
    const MS: Duration = Duration::from_millis(1);

    /// A policy of `workers` workers that took an interactive batch at the returned time.
    fn after_interactive(workers: usize) -> (LanePolicy, Instant) {
        let (mut policy, now) = (LanePolicy::new(workers), Instant::now());
        assert_eq!(policy.next(INTERACTIVE, now), Decision::Interactive);
        (policy, now)
    }

    #[test]
    fn nothing_waits_nothing_is_taken() {
        assert_eq!(LanePolicy::new(1).next(NONE, Instant::now()), Decision::Idle);
    }

    #[test]
    fn interactive_events_go_before_bulk_events() {
        assert_eq!(LanePolicy::new(1).next(BOTH, Instant::now()), Decision::Interactive);
    }

    #[test]
    fn without_interactive_work_every_worker_takes_whole_bulk_batches() {
        let (mut policy, now) = (LanePolicy::new(2), Instant::now());
        for _ in 0..2 {
            assert_eq!(policy.next(BULK, now), Decision::Bulk { single: false });
        }
    }

    #[test]
    fn while_interactive_work_comes_bulk_events_go_one_at_a_time() {
        let (mut policy, now) = after_interactive(2);
        assert_eq!(policy.next(BULK, now + MS), Decision::Bulk { single: true });
    }

    #[test]
    fn while_interactive_work_comes_bulk_work_leaves_one_worker_free() {
        let (mut policy, now) = after_interactive(2);
        assert_eq!(policy.next(BULK, now), Decision::Bulk { single: true });
        assert_eq!(policy.next(BULK, now + MS), Decision::HoldBulkUntil(now + COURTESY));
    }

    #[test]
    fn an_only_worker_may_have_bulk_work() {
        let (mut policy, now) = after_interactive(1);
        assert_eq!(policy.next(BULK, now), Decision::Bulk { single: true });
    }

    #[test]
    fn bulk_work_rests_for_as_long_as_its_last_batch_took() {
        let (mut policy, now) = after_interactive(1);
        policy.next(BULK, now);
        policy.bulk_done(now, now + 100 * MS);
        assert_eq!(policy.next(BULK, now + 101 * MS), Decision::HoldBulkUntil(now + 200 * MS));
        assert_eq!(policy.next(BULK, now + 200 * MS), Decision::Bulk { single: true });
    }

    #[test]
    fn a_rest_ends_with_the_courtesy() {
        let (mut policy, now) = after_interactive(1);
        policy.next(BULK, now);
        policy.bulk_done(now, now + 900 * MS);
        assert_eq!(policy.next(BULK, now + 901 * MS), Decision::HoldBulkUntil(now + COURTESY));
        assert_eq!(policy.next(BULK, now + COURTESY), Decision::Bulk { single: false });
    }

    #[test]
    fn an_interactive_event_ends_no_rest_and_waits_for_none() {
        let (mut policy, now) = after_interactive(1);
        policy.next(BULK, now);
        policy.bulk_done(now, now + 100 * MS);
        assert_eq!(policy.next(BOTH, now + 101 * MS), Decision::Interactive);
        assert_eq!(policy.next(BULK, now + 102 * MS), Decision::HoldBulkUntil(now + 200 * MS));
    }

    #[test]
    fn after_eight_interactive_batches_a_bulk_event_goes_first() {
        let (mut policy, now) = (LanePolicy::new(1), Instant::now());
        for _ in 0..BULK_EVERY {
            assert_eq!(policy.next(BOTH, now), Decision::Interactive);
        }
        assert_eq!(policy.next(BOTH, now), Decision::Bulk { single: true });
        assert_eq!(policy.next(BOTH, now), Decision::Interactive, "the count begins again");
    }

    #[test]
    fn a_bulk_event_that_is_due_does_not_rest() {
        let (mut policy, now) = (LanePolicy::new(1), Instant::now());
        policy.next(BULK, now);
        policy.bulk_done(now, now + 500 * MS);
        for _ in 0..BULK_EVERY {
            policy.next(INTERACTIVE, now + 501 * MS);
        }
        assert_eq!(policy.next(BULK, now + 502 * MS), Decision::Bulk { single: true });
    }

    #[test]
    fn a_bulk_event_that_is_due_does_not_take_the_last_free_worker() {
        let (mut policy, now) = (LanePolicy::new(2), Instant::now());
        assert_eq!(policy.next(BULK, now), Decision::Bulk { single: false });
        for _ in 0..=BULK_EVERY {
            assert_eq!(policy.next(BOTH, now), Decision::Interactive);
        }
    }
}
