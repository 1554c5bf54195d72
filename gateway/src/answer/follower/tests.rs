//! One behaviour of a follower's order per test.

use pipeline::testing::MemoryTransport;
use pipeline::{Content, OutcomeKind, Transport};
use serde_json::json;

use super::*;
use crate::testing::{flow, flow_entry, state};

const ID: &str = "r";

/// A request whose event is stored, on the broker in memory.
struct Request {
    transport: MemoryTransport,
    state: GatewayState,
}

impl Request {
    fn new() -> Self {
        let transport = MemoryTransport::with_flows([("describe", 10)]);
        let state = state(Arc::new(transport.clone()), vec![flow_entry("describe")]);
        Self { transport, state }
    }

    fn follower(&self) -> Follower {
        Follower::fresh(&self.state, &flow(ID)).accepted_first()
    }

    async fn publish(&self, kind: OutcomeKind, ordinal: u32) {
        self.publish_produced(kind, ordinal, OffsetDateTime::now_utc()).await;
    }

    async fn publish_produced(&self, kind: OutcomeKind, ordinal: u32, time: OffsetDateTime) {
        let outcome = Outcome { time, ..Outcome::new(kind, ordinal, flow("describe"), Content::json(&json!({}))) };
        self.transport.publish_outcome(&flow(ID), &outcome).await.unwrap();
    }
}

/// The ordinals of everything that follows, to the end.
async fn rest(mut follower: Follower) -> Vec<u32> {
    let mut ordinals = Vec::new();
    while let Some(outcome) = follower.next().await.unwrap() {
        ordinals.push(outcome.ordinal);
    }
    ordinals
}

/// Whether nothing comes now, for as long as the paused clock stands still.
async fn is_silent(follower: &mut Follower) -> bool {
    tokio::time::timeout(Duration::ZERO, follower.next()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn results_that_were_stored_before_accepted_come_after_it() {
    let request = Request::new();
    let mut follower = request.follower();
    request.publish(OutcomeKind::Data, 1).await;
    request.publish(OutcomeKind::Done, 2).await;
    assert!(is_silent(&mut follower).await);
    request.publish(OutcomeKind::Accepted, 0).await;
    assert_eq!(rest(follower).await, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_history_waits_for_accepted_too() {
    let request = Request::new();
    request.publish(OutcomeKind::Data, 1).await;
    let follower = Follower::resume(&request.state, &flow(ID), None).await.unwrap().unwrap();
    let mut follower = follower.accepted_first();
    assert!(is_silent(&mut follower).await);
    request.publish(OutcomeKind::Done, 2).await;
    assert!(is_silent(&mut follower).await);
    request.publish(OutcomeKind::Accepted, 0).await;
    assert_eq!(rest(follower).await, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_accepted_never_comes_goes_on_after_a_second() {
    let request = Request::new();
    let follower = request.follower();
    request.publish(OutcomeKind::Data, 1).await;
    request.publish(OutcomeKind::Data, 2).await;
    request.publish(OutcomeKind::Done, 3).await;
    let begun = Instant::now();
    assert_eq!(rest(follower).await, [1, 2, 3]);
    let waited = begun.elapsed();
    assert!(waited > FIRST_TIMEOUT / 2 && waited < FIRST_TIMEOUT * 2, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn results_that_are_older_than_the_wait_are_passed_on_at_once() {
    let request = Request::new();
    let produced = OffsetDateTime::now_utc() - FIRST_TIMEOUT * 2;
    request.publish_produced(OutcomeKind::Data, 1, produced).await;
    request.publish_produced(OutcomeKind::Done, 2, produced).await;
    let follower = Follower::resume(&request.state, &flow(ID), None).await.unwrap().unwrap();
    let begun = Instant::now();
    assert_eq!(rest(follower.accepted_first()).await, [1, 2]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn whoever_resumes_after_accepted_does_not_wait_for_it() {
    let request = Request::new();
    request.publish(OutcomeKind::Data, 1).await;
    request.publish(OutcomeKind::Done, 2).await;
    let follower = Follower::resume(&request.state, &flow(ID), Some(0)).await.unwrap().unwrap();
    let begun = Instant::now();
    assert_eq!(rest(follower.accepted_first()).await, [1, 2]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_lost_progress_report_holds_nothing_back() {
    let request = Request::new();
    let follower = request.follower();
    request.publish(OutcomeKind::Accepted, 0).await;
    request.publish(OutcomeKind::Progress, 2).await;
    request.publish(OutcomeKind::Done, 3).await;
    let begun = Instant::now();
    assert_eq!(rest(follower).await, [0, 2, 3]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
