//! Transitions of the state, and waits on a paused clock.

use super::*;
use crate::pauses::{FIRST_PAUSE, LONGEST_PAUSE};

const SECOND: Duration = Duration::from_secs(1);

fn down(waiting: usize) -> (State, Instant) {
    let since = Instant::now();
    (State::Down { since, waiting }, since)
}

#[test]
fn the_first_failure_begins_an_outage() {
    let (mut state, now) = (State::Up, Instant::now());
    assert_eq!(state.join(now), Some(Change::Began));
    assert_eq!(state, State::Down { since: now, waiting: 1 });
}

#[test]
fn a_further_failure_only_gets_in_line() {
    let (mut state, since) = down(1);
    assert_eq!(state.join(since + SECOND), None);
    assert_eq!(state, State::Down { since, waiting: 2 });
}

#[test]
fn a_probe_that_fails_changes_nothing_while_it_is_down() {
    let (mut state, since) = down(2);
    assert_eq!(state.probe_failed(since + SECOND), None);
    assert_eq!(state, State::Down { since, waiting: 2 });
}

#[test]
fn a_probe_that_succeeds_ends_the_outage_and_tells_how_long_it_lasted() {
    let (mut state, since) = down(1);
    assert_eq!(state.leave(true, since + SECOND), Some(Change::Recovered { lasted: SECOND }));
    assert_eq!(state, State::Up);
}

#[test]
fn while_others_wait_it_recovers() {
    let (mut state, since) = down(3);
    assert!(state.leave(true, since + SECOND).is_some());
    assert_eq!(state, State::Recovering { waiting: 2 });
}

#[test]
fn the_last_worker_to_go_on_ends_the_recovery_without_a_word() {
    let mut state = State::Recovering { waiting: 2 };
    assert_eq!(state.leave(true, Instant::now()), None);
    assert_eq!(state.leave(true, Instant::now()), None);
    assert_eq!(state, State::Up);
}

#[test]
fn a_probe_that_fails_during_the_recovery_begins_another_outage() {
    let (mut state, now) = (State::Recovering { waiting: 2 }, Instant::now());
    assert_eq!(state.probe_failed(now), Some(Change::Began));
    assert_eq!(state, State::Down { since: now, waiting: 2 });
}

#[test]
fn a_late_failure_during_the_recovery_begins_none() {
    let mut state = State::Recovering { waiting: 1 };
    assert_eq!(state.join(Instant::now()), None);
    assert_eq!(state, State::Recovering { waiting: 2 });
}

#[test]
fn one_worker_that_gives_up_leaves_the_others_waiting() {
    let (mut state, since) = down(2);
    assert_eq!(state.leave(false, since + SECOND), None);
    assert_eq!(state, State::Down { since, waiting: 1 });
}

#[test]
fn the_last_worker_that_gives_up_abandons_the_wait() {
    let (mut state, since) = down(1);
    assert_eq!(state.leave(false, since + SECOND), Some(Change::Abandoned { lasted: SECOND }));
    assert_eq!(state, State::Up);
}

fn outage() -> Outage {
    Outage::new(FlowName::new("f").unwrap(), "s".into())
}

fn error() -> BoxError {
    "nobody answers".into()
}

#[tokio::test(start_paused = true)]
async fn pauses_double_up_to_two_seconds() {
    let outage = outage();
    let mut wait = outage.begin(Some(60 * SECOND));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let begun = Instant::now();
        assert!(wait.pause(&error()).await);
        pauses.push(begun.elapsed());
    }
    // Each is up to a quarter shorter, and the clock has steps of 1 ms.
    assert!(pauses[0] <= FIRST_PAUSE + Duration::from_millis(1), "{pauses:?}");
    assert!(pauses[2] > 2 * FIRST_PAUSE && pauses[2] <= 4 * FIRST_PAUSE + Duration::from_millis(1), "{pauses:?}");
    assert!(pauses[7] <= LONGEST_PAUSE + Duration::from_millis(1) && pauses[7] * 4 >= LONGEST_PAUSE * 3, "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_before_the_patience_does() {
    let (outage, begun) = (outage(), Instant::now());
    let mut wait = outage.begin(Some(SECOND));
    while wait.pause(&error()).await {}
    assert!(begun.elapsed() < SECOND);
    drop(wait);
    assert!(!outage.is_waiting());
}

#[tokio::test(start_paused = true)]
async fn a_second_worker_waits_for_the_first_to_leave() {
    let outage = outage();
    let mut first = outage.begin(Some(60 * SECOND));
    assert!(first.pause(&error()).await);
    let mut second = outage.begin(Some(60 * SECOND));
    let cause = error();
    let mut pausing = Box::pin(second.pause(&cause));
    assert!(tokio::time::timeout(10 * SECOND, pausing.as_mut()).await.is_err());
    first.succeed();
    drop(first);
    let begun = Instant::now();
    assert!(pausing.await);
    assert!(begun.elapsed() <= FIRST_PAUSE + Duration::from_millis(1));
    assert!(outage.is_waiting(), "the second has not tried yet");
    drop(second);
    assert!(!outage.is_waiting());
}

#[tokio::test(start_paused = true)]
async fn a_worker_in_line_gives_up_when_its_patience_is_over() {
    let outage = outage();
    let mut first = outage.begin(Some(60 * SECOND));
    assert!(first.pause(&error()).await);
    let begun = Instant::now();
    let mut second = outage.begin(Some(SECOND));
    assert!(!second.pause(&error()).await);
    assert!(begun.elapsed() >= SECOND);
    drop(second);
    assert!(outage.is_waiting(), "the first still waits");
}

#[test]
fn a_batch_that_does_not_fail_never_waits() {
    let outage = outage();
    let mut wait = outage.begin(Some(SECOND));
    wait.succeed();
    drop(wait);
    assert!(!outage.is_waiting());
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_it_waits_for_as_long_as_it_takes() {
    let (outage, begun) = (outage(), Instant::now());
    let mut wait = outage.begin(None);
    while begun.elapsed() < 3600 * SECOND {
        assert!(wait.pause(&error()).await);
    }
}
