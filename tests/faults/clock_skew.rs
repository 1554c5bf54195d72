//! Clock skew: event times that are decades in the past or in the future.

use crate::broker_client::{Broker, Sent};
use crate::cluster::Cluster;
use crate::oracle::{Oracle, Violations, Want, payload};

/// Events per time, without and with a deadline.
const EVENTS: u64 = 10;

const TIMES: [&str; 4] =
    ["1970-01-01T00:00:00Z", "1901-12-13T20:45:52Z", "2038-01-19T03:14:08Z", "9999-12-31T23:59:59Z"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_times_decades_off_affect_only_deadlines() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let process = cluster.start().await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    let mut late = 0;
    for time in TIMES {
        let past = time < "2000";
        late += if past { EVENTS } else { 0 };
        for serial in 0..EVENTS {
            let headers = [("ce-time", time)];
            assert_eq!(oracle.send(&broker, "work", payload(serial, 100), &headers, None).await, Sent::Accepted);
            let headers = [("ce-time", time), ("Caudal-Deadline", time)];
            let want = past.then_some(Want::Failed("deadline_passed"));
            assert_eq!(oracle.send(&broker, "work", payload(serial, 100), &headers, want).await, Sent::Accepted);
        }
    }
    assert_eq!(oracle.verdict(&process, &broker).await, Violations::default(), "{}", cluster.log("all"));
    let all = TIMES.len() as u64 * 2 * EVENTS;
    assert_eq!(cluster.marks("work").len() as u64, all - late, "events past their deadline are not processed");
    assert_eq!(broker.redeliveries("work").await, 0);
}
