//! Storage and bounds; the lane policy has tests of its own.

use futures_util::FutureExt;

use super::*;
use crate::testing::units::{Roots, ids};

const BYTES: usize = 1 << 20;
const MS: Duration = Duration::from_millis(1);
const MANY: BatchLimits = BatchLimits { events: 16, bulk_events: 16, linger: Duration::ZERO };

fn queue(events: usize, overflow: Overflow) -> Queue {
    Queue::new("s".into(), QueueLimits { events, bytes: BYTES, overflow }, 2)
}

/// Sends an event that must not have to wait.
fn send(queue: &Queue, event: Event) -> Result<(), Closed> {
    queue.send(event).now_or_never().expect("it waits")
}

/// Whether a time is as expected, but for the steps of 1 ms in which a paused clock moves.
fn about(time: Duration, expected: Duration) -> bool {
    time >= expected && time <= expected + 2 * MS
}

/// The ids of the next batch, which must be there.
fn recv(queue: &Queue, limits: BatchLimits) -> Vec<String> {
    let batch = queue.recv(limits).now_or_never().expect("it waits").expect("it is closed");
    ids(&batch.events).into_iter().map(str::to_owned).collect()
}

#[test]
fn events_of_a_lane_leave_in_the_order_in_which_they_were_stored() {
    let (queue, roots) = (queue(8, Overflow::Block), Roots::new());
    for id in ["a", "b", "c"] {
        queue.try_send(roots.event(id, Lane::Interactive, "x")).unwrap();
    }
    assert_eq!(recv(&queue, BatchLimits { events: 2, ..MANY }), ["a", "b"]);
    assert_eq!(recv(&queue, MANY), ["c"]);
}

#[test]
fn a_batch_holds_one_lane_interactive_first() {
    let (queue, roots) = (queue(8, Overflow::Block), Roots::new());
    queue.try_send(roots.event("bulk", Lane::Bulk, "x")).unwrap();
    queue.try_send(roots.event("now", Lane::Interactive, "x")).unwrap();
    assert_eq!(recv(&queue, MANY), ["now"]);
    assert_eq!(recv(&queue, MANY), ["bulk"]);
}

#[test]
fn a_bulk_batch_has_a_bound_of_its_own() {
    let (queue, roots) = (queue(8, Overflow::Block), Roots::new());
    for id in ["a", "b", "c"] {
        queue.try_send(roots.event(id, Lane::Bulk, "x")).unwrap();
    }
    assert_eq!(recv(&queue, BatchLimits { bulk_events: 2, ..MANY }), ["a", "b"]);
}

#[test]
fn a_full_queue_gives_the_event_back() {
    let (queue, roots) = (queue(1, Overflow::Block), Roots::new());
    queue.try_send(roots.event("a", Lane::Interactive, "x")).unwrap();
    let back = queue.try_send(roots.event("b", Lane::Interactive, "x")).unwrap_err();
    assert_eq!(back.id.as_str(), "b");
}

#[test]
fn bytes_bound_it_as_well() {
    let (queue, roots) = (queue(8, Overflow::Block), Roots::new());
    let half = "x".repeat(BYTES / 2);
    queue.try_send(roots.event("a", Lane::Interactive, &half)).unwrap();
    assert!(queue.try_send(roots.event("b", Lane::Interactive, &half)).is_err());
}

#[test]
fn an_event_larger_than_the_bound_passes_alone() {
    let (queue, roots) = (queue(8, Overflow::Block), Roots::new());
    queue.try_send(roots.event("large", Lane::Interactive, &"x".repeat(2 * BYTES))).unwrap();
    assert!(queue.try_send(roots.event("small", Lane::Interactive, "x")).is_err());
    assert_eq!(recv(&queue, MANY), ["large"]);
    assert!(queue.try_send(roots.event("small", Lane::Interactive, "x")).is_ok());
}

#[test]
fn bulk_events_take_at_most_half() {
    let (queue, roots) = (queue(4, Overflow::Block), Roots::new());
    for id in ["a", "b"] {
        queue.try_send(roots.event(id, Lane::Bulk, "x")).unwrap();
    }
    assert!(queue.try_send(roots.event("c", Lane::Bulk, "x")).is_err());
    assert!(queue.try_send(roots.event("now", Lane::Interactive, "x")).is_ok());
}

#[test]
fn length_and_bytes_count_what_waits() {
    let (queue, roots) = (queue(8, Overflow::Block), Roots::new());
    let event = roots.event("a", Lane::Interactive, "12345");
    let size = event.payload.resident_bytes();
    queue.try_send(event).unwrap();
    assert_eq!((queue.len(), queue.bytes()), (1, size));
    recv(&queue, MANY);
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_blocking_edge_waits_for_room() {
    let (queue, roots) = (queue(1, Overflow::Block), Roots::new());
    send(&queue, roots.event("a", Lane::Interactive, "x")).unwrap();
    let mut sending = std::pin::pin!(queue.send(roots.event("b", Lane::Interactive, "x")));
    assert!(tokio::time::timeout(MS, sending.as_mut()).await.is_err());
    assert_eq!(recv(&queue, MANY), ["a"]);
    sending.await.unwrap();
    assert_eq!(recv(&queue, MANY), ["b"]);
}

#[test]
fn drop_newest_leaves_out_the_event_itself() {
    let (queue, mut roots) = (queue(1, Overflow::DropNewest), Roots::new());
    for id in ["a", "b"] {
        send(&queue, roots.event(id, Lane::Interactive, "x")).unwrap();
    }
    assert_eq!((queue.dropped(), roots.take_finished()), (1, vec!["b".to_owned()]));
    assert_eq!(recv(&queue, MANY), ["a"]);
}

#[test]
fn drop_oldest_leaves_out_the_oldest_of_the_lane() {
    let (queue, mut roots) = (queue(2, Overflow::DropOldest), Roots::new());
    for id in ["a", "b", "c"] {
        send(&queue, roots.event(id, Lane::Interactive, "x")).unwrap();
    }
    assert_eq!((queue.dropped(), roots.take_finished()), (1, vec!["a".to_owned()]));
    assert_eq!(recv(&queue, MANY), ["b", "c"]);
}

#[test]
fn drop_oldest_does_not_displace_the_other_lane() {
    let (queue, mut roots) = (queue(2, Overflow::DropOldest), Roots::new());
    for id in ["a", "b"] {
        send(&queue, roots.event(id, Lane::Interactive, "x")).unwrap();
    }
    send(&queue, roots.event("bulk", Lane::Bulk, "x")).unwrap();
    assert_eq!(roots.take_finished(), ["bulk"]);
    assert_eq!(recv(&queue, MANY), ["a", "b"]);
}

/// The code of the rejection of an event that a full edge left out.
fn rejection_code(overflow: Overflow, with_request: bool) -> Option<String> {
    let (queue, mut roots) = (queue(1, overflow), Roots::new());
    send(&queue, roots.event("a", Lane::Interactive, "x")).unwrap();
    let event = match with_request {
        true => roots.request("b", Lane::Interactive, "x"),
        false => roots.event("b", Lane::Interactive, "x"),
    };
    send(&queue, event).unwrap();
    let verdict = roots.finished.try_recv().unwrap().take_unsettled().unwrap().verdict;
    verdict.rejection.map(|(_, why)| why.code.into_owned())
}

#[test]
fn a_requester_gets_a_result_when_its_event_is_left_out() {
    assert_eq!(rejection_code(Overflow::DropNewest, true).as_deref(), Some("overflow"));
}

#[test]
fn an_event_without_a_request_is_dropped_silently() {
    assert_eq!(rejection_code(Overflow::DropNewest, false), None);
}

#[test]
fn a_rejecting_edge_fails_events_without_a_request_too() {
    assert_eq!(rejection_code(Overflow::Reject, false).as_deref(), Some("overflow"));
}

#[test]
fn a_closed_queue_refuses_events_and_counts_none_as_dropped() {
    for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::DropOldest, Overflow::Reject] {
        let (queue, roots) = (queue(4, overflow), Roots::new());
        queue.close();
        assert!(send(&queue, roots.event("a", Lane::Interactive, "x")).is_err(), "{overflow:?}");
        assert_eq!(queue.dropped(), 0);
    }
}

#[test]
fn events_that_wait_are_received_after_the_close() {
    let (queue, roots) = (queue(4, Overflow::Block), Roots::new());
    queue.try_send(roots.event("a", Lane::Interactive, "x")).unwrap();
    queue.close();
    assert_eq!(recv(&queue, MANY), ["a"]);
    assert!(queue.recv(MANY).now_or_never().expect("it waits").is_none());
}

#[tokio::test(start_paused = true)]
async fn an_event_wakes_a_worker_that_waits() {
    let (queue, roots) = (queue(4, Overflow::Block), Roots::new());
    let (batch, ()) = tokio::join!(queue.recv(MANY), async {
        tokio::time::sleep(MS).await;
        queue.try_send(roots.event("a", Lane::Interactive, "x")).unwrap();
    });
    assert_eq!(ids(&batch.unwrap().events), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn the_close_wakes_every_worker_that_waits() {
    let queue = queue(4, Overflow::Block);
    let (one, two, three, ()) = tokio::join!(queue.recv(MANY), queue.recv(MANY), queue.recv(MANY), async {
        tokio::time::sleep(MS).await;
        queue.close();
    });
    assert!(one.is_none() && two.is_none() && three.is_none());
}

#[tokio::test(start_paused = true)]
async fn one_wakeup_reaches_as_many_workers_as_there_are_events() {
    let (queue, roots) = (queue(4, Overflow::Block), Roots::new());
    let one = BatchLimits { events: 1, ..MANY };
    let (a, b, ()) = tokio::join!(queue.recv(one), queue.recv(one), async {
        tokio::time::sleep(MS).await;
        for id in ["a", "b"] {
            queue.try_send(roots.event(id, Lane::Interactive, "x")).unwrap();
        }
    });
    assert_eq!((a.unwrap().events.len(), b.unwrap().events.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_worker_lingers_for_a_fuller_batch() {
    let (queue, roots) = (queue(4, Overflow::Block), Roots::new());
    queue.try_send(roots.event("a", Lane::Interactive, "x")).unwrap();
    let (batch, ()) = tokio::join!(queue.recv(BatchLimits { linger: 10 * MS, ..MANY }), async {
        tokio::time::sleep(5 * MS).await;
        queue.try_send(roots.event("b", Lane::Interactive, "x")).unwrap();
    });
    assert_eq!(ids(&batch.unwrap().events), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_linger() {
    let (queue, roots) = (queue(4, Overflow::Block), Roots::new());
    queue.try_send(roots.event("a", Lane::Interactive, "x")).unwrap();
    let begun = Instant::now();
    queue.recv(BatchLimits { events: 1, linger: 10 * MS, ..MANY }).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_bulk_event_that_is_held_back_is_received_when_its_time_comes() {
    let (queue, roots) = (queue(8, Overflow::Block), Roots::new());
    queue.try_send(roots.event("now", Lane::Interactive, "x")).unwrap();
    for id in ["b1", "b2"] {
        queue.try_send(roots.event(id, Lane::Bulk, "x")).unwrap();
    }
    let begun = Instant::now();
    assert_eq!(recv(&queue, MANY), ["now"]);
    let first = queue.recv(MANY).await.unwrap();
    // Of two workers one stays free, until no interactive event came for a second.
    let second = queue.recv(MANY).await.unwrap();
    assert_eq!((ids(&first.events), ids(&second.events)), (vec!["b1"], vec!["b2"]));
    assert!(about(begun.elapsed(), Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_bulk_batch_wakes_a_worker_that_holds_back() {
    let (queue, roots) = (queue(8, Overflow::Block), Roots::new());
    queue.try_send(roots.event("now", Lane::Interactive, "x")).unwrap();
    for id in ["b1", "b2"] {
        queue.try_send(roots.event(id, Lane::Bulk, "x")).unwrap();
    }
    let begun = Instant::now();
    assert_eq!(recv(&queue, MANY), ["now"]);
    let first = queue.recv(MANY).await.unwrap();
    let (second, ()) = tokio::join!(queue.recv(MANY), async {
        tokio::time::sleep(100 * MS).await;
        drop(first);
    });
    assert_eq!(ids(&second.unwrap().events), ["b2"]);
    // The batch took 100 ms, and the rest after it takes as long.
    assert!(about(begun.elapsed(), 200 * MS));
}
