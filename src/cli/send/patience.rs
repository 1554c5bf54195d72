//! How long a call is repeated while it fails for a reason that passes.
//!
//! A service that restarts refuses connections for a moment and breaks off the ones it had. Such calls are repeated with growing
//! pauses, until one call, or all calls together, have failed for the whole patience.

use std::cell::Cell;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::Instant;

use super::call_error::{CallError, NoService};
use crate::http_client;

/// Pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between two attempts if the service does not name one.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Longest pause that the service may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Longest wait for a service that no call of this run has reached: longer than it takes to start, so it is not there.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// Repeats the calls of one run. Used by one task.
pub struct Patience {
    limit: Duration,
    /// The value of `--to`.
    base: String,
    /// Whether a call has reached the service, in this run.
    was_reached: Cell<bool>,
    /// Since when no call has reached the service. All calls share it: once the patience is used up, the files that remain
    /// fail at their first attempt.
    unreachable_since: Cell<Option<Instant>>,
    bar: ProgressBar,
}

impl Patience {
    /// Calls are repeated for `limit`. An outage is told once, beside the bar.
    pub fn new(limit: Duration, base: &str, bar: ProgressBar) -> Self {
        Self { limit, base: base.to_owned(), was_reached: Cell::new(false), unreachable_since: Cell::new(None), bar }
    }

    /// Repeats the call until it succeeds, fails for good, or the patience is used up.
    ///
    /// # Errors
    /// The last failure.
    pub async fn call<T>(&self, call: impl AsyncFn() -> Result<T, CallError>) -> Result<T, CallError> {
        let mut failing_since = None;
        let mut failures = 0;
        loop {
            let error = match call().await {
                Err(error @ (CallError::Unreachable(_) | CallError::Busy { .. })) => error,
                settled => {
                    if matches!(settled, Ok(_) | Err(CallError::Refused { .. } | CallError::Fatal(_))) {
                        self.reached();
                    }
                    return settled;
                }
            };
            let since = self.note(&error).min(*failing_since.get_or_insert_with(Instant::now));
            let Some(left) = self.limit().checked_sub(since.elapsed()).filter(|left| !left.is_zero()) else {
                return Err(self.used_up(error));
            };
            tokio::time::sleep(pause(failures, &error).min(left)).await;
            failures += 1;
        }
    }

    /// Notes a failure that may pass, and returns since when calls have failed like that.
    fn note(&self, error: &CallError) -> Instant {
        let now = Instant::now();
        let CallError::Unreachable(why) = error else {
            self.reached();
            return now;
        };
        if let Some(since) = self.unreachable_since.get() {
            return since;
        }
        self.unreachable_since.set(Some(now));
        let seconds = self.limit().as_secs();
        self.bar.suspend(|| eprintln!("the service cannot be reached, trying for {seconds} s: {why:#}"));
        now
    }

    /// How long calls are repeated.
    fn limit(&self) -> Duration {
        if self.was_reached.get() { self.limit } else { self.limit.min(FIRST_CONTACT) }
    }

    fn reached(&self) {
        self.was_reached.set(true);
        self.unreachable_since.set(None);
    }

    fn used_up(&self, error: CallError) -> CallError {
        if let (CallError::Unreachable(why), false) = (&error, self.was_reached.get()) {
            return CallError::Fatal(NoService(format!("{}: {why:#}", http_client::unreachable(&self.base))));
        }
        let seconds = self.limit.as_secs();
        let error = anyhow::Error::from(error);
        CallError::Other(error.context(format!("tried for {seconds} s (--patience)")))
    }
}

/// The pause after a failure, with jitter so that files do not return all at once. Never shorter than the service asks.
fn pause(failures: u32, error: &CallError) -> Duration {
    let jitter = rand::random::<f64>();
    match error {
        CallError::Busy { retry_after: Some(asked), .. } => {
            (*asked).min(LONGEST_RETRY_AFTER).mul_f64(1.0 + jitter / 4.0)
        }
        _ => (FIRST_PAUSE * 2_u32.pow(failures.min(10))).min(LONGEST_PAUSE).mul_f64(1.0 - jitter / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use reqwest::StatusCode;

    use super::*;

    fn patience(seconds: u64) -> Patience {
        let patience = Patience::new(Duration::from_secs(seconds), "http://127.0.0.1:8080", ProgressBar::hidden());
        patience.reached();
        patience
    }

    fn unreachable() -> CallError {
        CallError::Unreachable(anyhow!("connection refused"))
    }

    fn busy(retry_after: Option<u64>) -> CallError {
        CallError::Busy { why: "full".into(), retry_after: retry_after.map(Duration::from_secs) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_repeated_until_the_service_is_back() {
        let begun = Instant::now();
        let patience = patience(120);
        let call = async || if begun.elapsed() < Duration::from_secs(100) { Err(unreachable()) } else { Ok(7) };
        assert_eq!(patience.call(call).await.unwrap(), 7);
        assert!(begun.elapsed() < Duration::from_secs(106), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_with_the_patience_and_names_it() {
        let begun = Instant::now();
        let error = patience(120).call::<()>(async || Err(unreachable())).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 120);
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.contains("120 s (--patience)") && text.contains("connection refused"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_was_never_reached_is_away_and_to_is_named() {
        let begun = Instant::now();
        let patience = Patience::new(Duration::from_secs(120), "http://127.0.0.1:9", ProgressBar::hidden());
        let error = patience.call::<()>(async || Err(unreachable())).await.unwrap_err();
        assert_eq!(begun.elapsed(), FIRST_CONTACT);
        let error = anyhow::Error::from(error);
        assert!(error.is::<NoService>() && error.to_string().contains("http://127.0.0.1:9"), "{error:#}");
        assert!(error.to_string().contains("--to"), "{error:#}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_service_is_there_and_is_waited_for() {
        let begun = Instant::now();
        let patience = Patience::new(Duration::from_secs(120), "http://127.0.0.1:9", ProgressBar::hidden());
        let calls = Cell::new(0);
        let call = async || {
            calls.set(calls.get() + 1);
            Err::<(), _>(if calls.get() == 1 { busy(None) } else { unreachable() })
        };
        patience.call(call).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 120);
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_as_long_as_the_patience_other_calls_fail_at_once() {
        let patience = patience(120);
        patience.call::<()>(async || Err(unreachable())).await.unwrap_err();
        let begun = Instant::now();
        patience.call::<()>(async || Err(unreachable())).await.unwrap_err();
        assert!(begun.elapsed().is_zero(), "{:?}", begun.elapsed());
        // An answer ends the outage.
        patience.call(async || Ok(())).await.unwrap();
        patience.call::<()>(async || Err(unreachable())).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 120);
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_ends_with_the_patience_although_others_succeed() {
        let begun = Instant::now();
        let patience = patience(120);
        let call = async || {
            patience.unreachable_since.set(None);
            Err::<(), _>(unreachable())
        };
        patience.call(call).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 120);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_repeated() {
        let calls = Cell::new(0);
        let call = async || {
            calls.set(calls.get() + 1);
            Err::<(), _>(CallError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, why: "no pixels".into() })
        };
        patience(120).call(call).await.unwrap_err();
        assert_eq!(calls.get(), 1);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_never_shorter_than_asked() {
        for (failures, longest) in [(0, 100), (1, 200), (4, 1600), (6, 5000), (1000, 5000)] {
            let pause = pause(failures, &unreachable()).as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{failures}: {pause}");
        }
        let asked = pause(0, &busy(Some(8))).as_secs_f64();
        assert!((8.0..=10.0).contains(&asked), "{asked}");
        assert!(pause(0, &busy(Some(86_400))).as_secs() <= 75);
        assert!(pause(0, &busy(None)).as_millis() <= 100);
    }
}
