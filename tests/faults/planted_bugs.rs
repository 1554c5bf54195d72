//! Tests of the fault tests: the same scenario passes without a bug, and each planted bug is detected.

use rustix::process::Signal;

use crate::broker_client::Broker;
use crate::cluster::Cluster;
use crate::oracle::{Oracle, Violations};

/// Events before the death, and as many after it.
const EVENTS: usize = 20;

/// Kills the worker at a kill point, restarts it, and returns the violations.
async fn violations_after_death(bug: Option<&'static str>, point: &str, times: u32) -> Violations {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let cluster = match bug {
        Some(bug) => cluster.with_bug(bug),
        None => cluster,
    };
    let gateway = cluster.start_gateway().await;
    let worker = cluster.start_beside("worker", "worker", &["--flows", "work"]).await;
    cluster.arm(point, "work", times);
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&gateway, "work", EVENTS).await;
    let status = worker.wait_for_exit().await;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::KILL.as_raw()), "{status}");
    assert!(cluster.has_fired(), "the worker died before the kill point");
    let worker = cluster.start_beside("worker", "worker", &["--flows", "work"]).await;
    oracle.post_until_accepted(&gateway, "work", EVENTS).await;
    // The verdict reads the worker's metrics: they say how many events are in flight.
    oracle.verdict(&worker, &Broker::open(&cluster.data()).await).await
}

#[tokio::test]
async fn without_a_bug_there_are_no_violations() {
    assert_eq!(violations_after_death(None, "work", 5).await, Violations::default());
    assert_eq!(violations_after_death(None, "outcome", 5).await, Violations::default());
}

#[tokio::test]
async fn an_acknowledgement_before_the_effect_loses_events() {
    let violations = violations_after_death(Some("ack-early"), "work", 5).await;
    assert!(violations.lost > 0, "{violations:?}");
    assert_eq!(violations, Violations { lost: violations.lost, ..Violations::default() });
}

#[tokio::test]
async fn results_without_a_fence_appear_twice() {
    let violations = violations_after_death(Some("no-fence"), "outcome", 5).await;
    assert!(violations.duplicate > 0, "{violations:?}");
    assert_eq!(violations, Violations { duplicate: violations.duplicate, ..Violations::default() });
}

#[tokio::test]
async fn altered_answers_are_detected() {
    let violations = violations_after_death(Some("corrupt"), "work", 5).await;
    assert!(violations.corrupt > 0, "{violations:?}");
    assert_eq!(violations, Violations { corrupt: violations.corrupt, ..Violations::default() });
}

#[tokio::test]
async fn results_of_unknown_requests_are_detected() {
    let violations = violations_after_death(Some("spurious"), "work", 5).await;
    assert!(violations.spurious > 0, "{violations:?}");
    assert_eq!(violations, Violations { spurious: violations.spurious, ..Violations::default() });
}

#[tokio::test]
async fn without_a_ledger_repeated_events_are_processed_again() {
    let effects = crate::broker_outage::effects_of_repeats(Some("no-ledger")).await;
    assert!(effects.after > effects.before, "{effects:?}");
}
