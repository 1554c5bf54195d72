//! Broker faults: the broker is killed, paused or slow, or has lost its window of known message ids.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::broker_client::{Broker, Sent};
use crate::cluster::{Cluster, children, eventually, send};
use crate::oracle::{Oracle, Reply, Violations};

/// Number of broker kills under load.
const DEATHS: usize = 5;
/// Events per kill.
const EVENTS_PER_KILL: usize = 40;

/// The broker is killed repeatedly while requests arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_repeatedly_loses_no_event() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let process = cluster.start().await;
    let mut oracle = Oracle::default();
    let mut brokers = BTreeSet::from([process.broker()]);
    for _ in 0..DEATHS {
        let broker = process.broker();
        // Half of the events before the kill, half during it.
        oracle.post_until_accepted(&process, "work", EVENTS_PER_KILL / 2).await;
        let posting = oracle.post_until_accepted(&process, "work", EVENTS_PER_KILL / 2);
        let killing = async {
            send(broker, Signal::KILL);
            eventually("the broker is restarted", || async {
                children(process.pid).first().is_some_and(|pid| *pid != broker)
            })
            .await;
        };
        tokio::join!(posting, killing);
        brokers.insert(process.broker());
    }
    assert_eq!(brokers.len(), DEATHS + 1, "every kill led to a new broker process");
    eventually("the service recovers", || async { process.ready().await.0 == 200 }).await;
    let broker = Broker::open(&cluster.data()).await;
    assert_eq!(oracle.verdict(&process, &broker).await, Violations::default(), "{}", cluster.log("all"));
    let effects: BTreeSet<String> = cluster.marks("work").into_iter().collect();
    assert!(oracle.accepted.keys().all(|id| effects.contains(id)), "an event was answered without its effect");
}

/// Number of effects before and after ended events are sent again.
#[derive(Debug)]
pub struct Effects {
    pub before: usize,
    pub after: usize,
}

/// Events end, broker and service are killed, and the same ids are sent again.
pub async fn effects_of_repeats(bug: Option<&'static str>) -> Effects {
    const REPEATED: usize = 50;
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let cluster = match bug {
        Some(bug) => cluster.with_bug(bug),
        None => cluster,
    };
    let process = cluster.start().await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    for _ in 0..REPEATED {
        assert_eq!(oracle.send_digest(&broker, "work").await, Sent::Accepted);
    }
    assert_eq!(oracle.verdict(&process, &broker).await, Violations::default());
    let before = cluster.marks("work").len();
    process.kill().await;

    let process = cluster.start().await;
    let broker = Broker::open(&cluster.data()).await;
    let (_, delivered) = broker.deliveries("work").await;
    for (id, bytes) in oracle.sent() {
        assert_eq!(broker.send("work", &id, bytes, &[]).await, Sent::Accepted, "the broker accepts the id again");
    }
    let violations = oracle.verdict(&process, &broker).await;
    assert_eq!(violations, Violations::default(), "the answers are unchanged");
    let (_, after) = broker.deliveries("work").await;
    assert_eq!(after - delivered, REPEATED as u64, "the repeated events were delivered");
    Effects { before, after: cluster.marks("work").len() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_events_sent_again_after_a_restart_are_not_processed_again() {
    let effects = effects_of_repeats(None).await;
    assert_eq!((effects.before, effects.after), (50, 50));
}

/// The broker is paused (SIGSTOP). Every request is answered, no accepted event is lost, `/ready` reports the outage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_reports_a_paused_broker_and_recovers_when_it_resumes() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let process = cluster.start().await;
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
    assert_eq!(oracle.unanswered, 0, "requests without an answer: {replies:?}");
    assert_eq!(process.get("/health").send().await.unwrap().status(), 200);
    send(broker, Signal::CONT);
    eventually("readiness comes back", || async { process.ready().await.0 == 200 }).await;
    oracle.post_until_accepted(&process, "work", 20).await;
    let broker = Broker::open(&cluster.data()).await;
    assert_eq!(oracle.verdict(&process, &broker).await, Violations::default(), "{}", cluster.log("all"));
}

/// The broker is paused for 120 ms, then runs for 10 ms.
const PAUSED: Duration = Duration::from_millis(120);
const RUNNING: Duration = Duration::from_millis(10);
/// Requests arrive until the broker was paused this often.
const PAUSES: usize = 10;

/// Like a slow disk: every confirmation is late, as long as requests arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_broker_loses_no_event() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let process = cluster.start().await;
    let mut oracle = Oracle::default();
    let pid = process.broker();
    let pauses = AtomicUsize::new(0);
    let posting = async {
        while pauses.load(Ordering::Relaxed) < PAUSES {
            oracle.post_until_accepted(&process, "work", 10).await;
        }
    };
    let pausing = async {
        loop {
            send(pid, Signal::STOP);
            tokio::time::sleep(PAUSED).await;
            send(pid, Signal::CONT);
            pauses.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(RUNNING).await;
        }
    };
    tokio::select! {
        () = posting => {}
        () = pausing => {}
    }
    send(pid, Signal::CONT);
    let broker = Broker::open(&cluster.data()).await;
    assert_eq!(oracle.verdict(&process, &broker).await, Violations::default(), "{}", cluster.log("all"));
    eventually("it is ready", || async { process.ready().await.0 == 200 }).await;
}
