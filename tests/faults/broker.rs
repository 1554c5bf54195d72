//! The broker dies, stands still, or forgets which ids it has seen.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::oracle::{Counts, Oracle, Reply};
use crate::outside::{Broker, Sent};
use crate::world::{World, children, eventually, send};

/// Deaths of the broker under load.
const DEATHS: usize = 5;
/// Events between two of them.
const BETWEEN: usize = 40;

/// F02: killed again and again while requests come in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_again_and_again_loses_nothing() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let process = world.start().await;
    let mut oracle = Oracle::default();
    let mut brokers = BTreeSet::from([process.broker()]);
    for _ in 0..DEATHS {
        let broker = process.broker();
        // Half of them before the death, half across it.
        oracle.post_until_accepted(&process, "work", BETWEEN / 2).await;
        let posting = oracle.post_until_accepted(&process, "work", BETWEEN / 2);
        let killing = async {
            send(broker, Signal::KILL);
            eventually("the broker is started again", || async {
                children(process.pid).first().is_some_and(|pid| *pid != broker)
            })
            .await;
        };
        tokio::join!(posting, killing);
        brokers.insert(process.broker());
    }
    assert_eq!(brokers.len(), DEATHS + 1, "each death was one");
    eventually("the service recovers", || async { process.ready().await.0 == 200 }).await;
    let broker = Broker::open(&world.data()).await;
    assert_eq!(oracle.verdict(&process, &broker).await, Counts::default(), "{}", world.log("all"));
    let effects: BTreeSet<String> = world.marks("work").into_iter().collect();
    assert!(oracle.owed.keys().all(|id| effects.contains(id)), "an answer without its effect");
}

/// Marks before and after events that have ended came once more.
#[derive(Debug)]
pub struct Effects {
    pub before: usize,
    pub after: usize,
}

/// F02b: events end, broker and service die, and the same ids are sent again.
pub async fn effects_of_repeats(bug: Option<&'static str>) -> Effects {
    const REPEATED: usize = 50;
    let world = World::new("tests/faults/flows.toml", &[]);
    let world = match bug {
        Some(bug) => world.with_bug(bug),
        None => world,
    };
    let process = world.start().await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    for _ in 0..REPEATED {
        assert_eq!(oracle.send_digest(&broker, "work").await, Sent::Accepted);
    }
    assert_eq!(oracle.verdict(&process, &broker).await, Counts::default());
    let before = world.marks("work").len();
    process.kill().await;

    let process = world.start().await;
    let broker = Broker::open(&world.data()).await;
    let (_, delivered) = broker.deliveries("work").await;
    for (id, bytes) in oracle.sent() {
        assert_eq!(broker.send("work", &id, bytes, &[]).await, Sent::Accepted, "the broker has forgotten the id");
    }
    let counts = oracle.verdict(&process, &broker).await;
    assert_eq!(counts, Counts::default(), "the same answers");
    let (_, after) = broker.deliveries("work").await;
    assert_eq!(after - delivered, REPEATED as u64, "the repeats were delivered");
    Effects { before, after: world.marks("work").len() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_have_ended_are_not_done_again_after_broker_and_service_died() {
    let effects = effects_of_repeats(None).await;
    assert_eq!((effects.before, effects.after), (50, 50));
}

/// F03: stopped for a while. Every request is answered, nothing accepted is lost, readiness follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stands_still_is_noticed_and_forgiven() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let process = world.start().await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&process, "work", 20).await;
    let broker = process.broker();
    send(broker, Signal::STOP);
    eventually("readiness names the broker", || async {
        let (status, text) = process.ready().await;
        status == 503 && text.contains("broker")
    })
    .await;
    let replies = oracle.post_digests(&process, "work", 8, 8).await;
    assert!(replies.iter().all(|reply| !matches!(reply, Reply::Accepted(_))), "{replies:?}");
    assert_eq!(oracle.nameless, 0, "every request was answered: {replies:?}");
    assert_eq!(process.get("/health").send().await.unwrap().status(), 200);
    send(broker, Signal::CONT);
    eventually("readiness comes back", || async { process.ready().await.0 == 200 }).await;
    oracle.post_until_accepted(&process, "work", 20).await;
    let broker = Broker::open(&world.data()).await;
    assert_eq!(oracle.verdict(&process, &broker).await, Counts::default(), "{}", world.log("all"));
}

/// How long the broker stands still each time, and how little it does in between.
const HELD_UP: Duration = Duration::from_millis(120);
const LET_GO: Duration = Duration::from_millis(10);
/// Requests come in for as long as it takes to hold it up so often.
const TIMES_HELD_UP: usize = 10;

/// As on a disk that is slow: every confirmation takes long, for as long as requests come in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_broker_is_slow_and_no_worse() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let process = world.start().await;
    let mut oracle = Oracle::default();
    let pid = process.broker();
    let held_up = AtomicUsize::new(0);
    let posting = async {
        while held_up.load(Ordering::Relaxed) < TIMES_HELD_UP {
            oracle.post_until_accepted(&process, "work", 10).await;
        }
    };
    let holding_up = async {
        loop {
            send(pid, Signal::STOP);
            tokio::time::sleep(HELD_UP).await;
            send(pid, Signal::CONT);
            held_up.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(LET_GO).await;
        }
    };
    tokio::select! {
        () = posting => {}
        () = holding_up => {}
    }
    send(pid, Signal::CONT);
    let broker = Broker::open(&world.data()).await;
    assert_eq!(oracle.verdict(&process, &broker).await, Counts::default(), "{}", world.log("all"));
    eventually("it is ready", || async { process.ready().await.0 == 200 }).await;
}
