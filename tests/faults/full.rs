//! F15: a queue that is full refuses, says for how long, and keeps its word.

use std::time::Duration;

use futures_util::future::join_all;

use crate::oracle::{Counts, Oracle, Reply};
use crate::outside::{Broker, Sent};
use crate::world::World;

/// Events that fit.
const BOUND: usize = 100;
/// Events that are sent.
const SENT: usize = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_takes_exactly_its_bound_and_says_when_to_come_again() {
    let world = World::new("tests/faults/flows.toml", &[&format!("flow.work.backlog.events={BOUND}")]);
    let gateway = world.start_gateway().await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    let replies = oracle.post_digests(&gateway, "work", SENT, SENT).await;
    assert_eq!(oracle.owed.len(), BOUND, "accepted");
    let pauses: Vec<u64> = replies
        .iter()
        .filter_map(|reply| match reply {
            Reply::Refused { status: 503, retry_after: Some(pause) } => Some(*pause),
            Reply::Accepted(_) => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pauses.len(), SENT - BOUND, "refused, each with a pause");
    assert!(pauses.iter().all(|pause| (1..=60).contains(pause)), "{pauses:?}");
    // Past the gateway it is no different.
    assert_eq!(oracle.send_digest(&broker, "work").await, Sent::Refused(10_077));
    assert_eq!(broker.messages("EV-work").await as usize, BOUND);

    let gateway = &gateway;
    let worker = world.start_beside("worker", "worker", &[]).await;
    // Each client obeys, on its own.
    let obeyed = (1..).zip(&pauses).map(|(client, pause)| async move {
        tokio::time::sleep(Duration::from_secs(*pause)).await;
        let mut again = Oracle::starting_at(client * 1_000);
        let reply = again.post_digests(gateway, "work", 1, 1).await.remove(0);
        (again, reply)
    });
    let replies: Vec<(Oracle, Reply)> = join_all(obeyed).await;
    let kept = replies.iter().filter(|(_, reply)| matches!(reply, Reply::Accepted(_))).count();
    assert!(10 * kept >= 9 * pauses.len(), "of {} that obeyed {kept} were accepted", pauses.len());
    replies.into_iter().for_each(|(again, _)| oracle.join(again));
    let missing = SENT - oracle.owed.len();
    oracle.post_until_accepted(gateway, "work", missing).await;
    assert_eq!(oracle.verdict(gateway, &broker).await, Counts::default(), "{}", world.log("worker"));
    assert_eq!(oracle.owed.len(), SENT);
    drop(worker);
}
