//! Processes that live, and processes that are gone.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

mod support;

use pipeline::Transport;
use support::*;

#[tokio::test]
async fn a_process_lives_for_as_long_as_it_is_announced() {
    let broker = Broker::start().await;
    let (one, other) = (broker.connect(topology(&[])).await, broker.connect(topology(&[])).await);
    let announcement = one.announce(&token("p1")).await.unwrap();
    assert!(other.is_alive(&token("p1")).await.unwrap());
    assert!(!other.is_alive(&token("p2")).await.unwrap(), "nobody ever announced it");
    drop(announcement);
    // A question that reaches the broker before the end of the subscription is not answered, as by a paused process.
    eventually("it is gone", || async { !other.is_alive(&token("p1")).await.unwrap() }).await;
}

#[tokio::test]
async fn a_process_that_closes_its_connection_is_gone() {
    let broker = Broker::start().await;
    let (one, other) = (broker.connect(topology(&[])).await, broker.connect(topology(&[])).await);
    let _announcement = one.announce(&token("p1")).await.unwrap();
    one.close().await;
    eventually("it is gone", || async { !other.is_alive(&token("p1")).await.unwrap() }).await;
}
