//! Planted bugs: the same scenario is green without a bug and red with each of them, or green means nothing.

use rustix::process::Signal;

use crate::oracle::{Counts, Oracle};
use crate::outside::Broker;
use crate::world::World;

/// Events of a run.
const EVENTS: usize = 20;

/// The worker dies at a point and is started again, while the gateway lives; what is wrong afterwards.
async fn death(bug: Option<&'static str>, point: &str, times: u32) -> Counts {
    let world = World::new("tests/faults/flows.toml", &[]);
    let world = match bug {
        Some(bug) => world.with_bug(bug),
        None => world,
    };
    let gateway = world.start_gateway().await;
    let worker = world.start_beside("worker", "worker", &["--flows", "work"]).await;
    world.arm(point, "work", times);
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&gateway, "work", EVENTS).await;
    let status = worker.died().await;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::KILL.as_raw()), "{status}");
    assert!(world.has_fired(), "it died of something else");
    let worker = world.start_beside("worker", "worker", &["--flows", "work"]).await;
    oracle.post_until_accepted(&gateway, "work", EVENTS).await;
    // Asked of the worker, which knows whether it is still at work.
    oracle.verdict(&worker, &Broker::open(&world.data()).await).await
}

#[tokio::test]
async fn without_a_bug_all_is_well() {
    assert_eq!(death(None, "work", 5).await, Counts::default());
    assert_eq!(death(None, "outcome", 5).await, Counts::default());
}

#[tokio::test]
async fn an_acknowledgement_before_the_effect_loses_events() {
    let counts = death(Some("ack-early"), "work", 5).await;
    assert!(counts.lost > 0, "{counts:?}");
    assert_eq!(counts, Counts { lost: counts.lost, ..Counts::default() });
}

#[tokio::test]
async fn results_without_a_fence_appear_twice() {
    let counts = death(Some("no-fence"), "outcome", 5).await;
    assert!(counts.duplicate > 0, "{counts:?}");
    assert_eq!(counts, Counts { duplicate: counts.duplicate, ..Counts::default() });
}

#[tokio::test]
async fn altered_answers_are_found() {
    let counts = death(Some("corrupt"), "work", 5).await;
    assert!(counts.corrupt > 0, "{counts:?}");
    assert_eq!(counts, Counts { corrupt: counts.corrupt, ..Counts::default() });
}

#[tokio::test]
async fn results_that_nobody_asked_for_are_found() {
    let counts = death(Some("spurious"), "work", 5).await;
    assert!(counts.spurious > 0, "{counts:?}");
    assert_eq!(counts, Counts { spurious: counts.spurious, ..Counts::default() });
}

#[tokio::test]
async fn without_a_ledger_repeats_have_their_effects_again() {
    let effects = crate::broker::effects_of_repeats(Some("no-ledger")).await;
    assert!(effects.after > effects.before, "{effects:?}");
}
