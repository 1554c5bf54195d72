//! F16: clocks of senders that are wrong by decades, either way.

use crate::oracle::{Counts, Oracle, Want, payload};
use crate::outside::{Broker, Sent};
use crate::world::World;

/// Events of each kind.
const EVENTS: u64 = 10;

const TIMES: [&str; 4] =
    ["1970-01-01T00:00:00Z", "1901-12-13T20:45:52Z", "2038-01-19T03:14:08Z", "9999-12-31T23:59:59Z"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_far_in_the_past_and_the_future_change_nothing_but_deadlines() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let process = world.start().await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    let mut late = 0;
    for time in TIMES {
        let past = time < "2000";
        late += if past { EVENTS } else { 0 };
        for serial in 0..EVENTS {
            let seen = [("ce-time", time)];
            assert_eq!(oracle.send(&broker, "work", payload(serial, 100), &seen, None).await, Sent::Accepted);
            let worth = [("ce-time", time), ("Caudal-Deadline", time)];
            let want = past.then_some(Want::Failed("deadline_passed"));
            assert_eq!(oracle.send(&broker, "work", payload(serial, 100), &worth, want).await, Sent::Accepted);
        }
    }
    assert_eq!(oracle.verdict(&process, &broker).await, Counts::default(), "{}", world.log("all"));
    let all = TIMES.len() as u64 * 2 * EVENTS;
    assert_eq!(world.marks("work").len() as u64, all - late, "what is too late is not worked on");
    assert_eq!(broker.redeliveries("work").await, 0);
}
