//! A full queue refuses requests with Retry-After, and accepts most of them after that time.

use std::time::Duration;

use futures_util::future::join_all;

use crate::broker_client::{Broker, Sent};
use crate::cluster::Cluster;
use crate::oracle::{Oracle, Reply, Violations};

/// Capacity of the queue in events.
const LIMIT: usize = 100;
/// Number of events sent.
const SENT: usize = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_accepts_exactly_its_limit_and_refuses_with_retry_after() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[&format!("flow.work.backlog.events={LIMIT}")]);
    let gateway = cluster.start_gateway().await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    let replies = oracle.post_digests(&gateway, "work", SENT, SENT).await;
    assert_eq!(oracle.accepted.len(), LIMIT, "accepted");
    let pauses: Vec<u64> = replies
        .iter()
        .filter_map(|reply| match reply {
            Reply::Refused { status: 503, retry_after: Some(pause) } => Some(*pause),
            Reply::Accepted(_) => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pauses.len(), SENT - LIMIT, "refused, each with Retry-After");
    assert!(pauses.iter().all(|pause| (1..=60).contains(pause)), "{pauses:?}");
    // The broker refuses events published directly, too (error 10077).
    assert_eq!(oracle.send_digest(&broker, "work").await, Sent::Refused(10_077));
    assert_eq!(broker.messages("EV-work").await as usize, LIMIT);

    let gateway = &gateway;
    let worker = cluster.start_beside("worker", "worker", &[]).await;
    // Every client waits as Retry-After says and tries again.
    let retries = (1..).zip(&pauses).map(|(client, pause)| async move {
        tokio::time::sleep(Duration::from_secs(*pause)).await;
        let mut again = Oracle::starting_at(client * 1_000);
        let reply = again.post_digests(gateway, "work", 1, 1).await.remove(0);
        (again, reply)
    });
    let replies: Vec<(Oracle, Reply)> = join_all(retries).await;
    let accepted = replies.iter().filter(|(_, reply)| matches!(reply, Reply::Accepted(_))).count();
    assert!(10 * accepted >= 9 * pauses.len(), "{accepted} of {} retries were accepted", pauses.len());
    replies.into_iter().for_each(|(again, _)| oracle.join(again));
    let missing = SENT - oracle.accepted.len();
    oracle.post_until_accepted(gateway, "work", missing).await;
    assert_eq!(oracle.verdict(gateway, &broker).await, Violations::default(), "{}", cluster.log("worker"));
    assert_eq!(oracle.accepted.len(), SENT);
    drop(worker);
}
