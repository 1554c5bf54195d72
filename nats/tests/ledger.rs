//! The ledger, records and the order of keys, on a real server, also after it was killed.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

mod support;

use std::time::Duration;

use nats::Topology;
use pipeline::{End, Entry, Lane, Ledger, LedgerUpdate, Settlement, SourceBounds, Submission, SubmitAck, Transport};
use rustix::process::{Pid, Signal, kill_process};
use support::*;
use tokio::sync::mpsc;

fn entry(id: &str) -> Entry {
    Entry::new(&token("f"), &token(id), End::Settled)
}

/// Adds the entries to `ledger` until all that are stored have been read.
async fn read_all(ledger: &Ledger, news: &mut mpsc::Receiver<LedgerUpdate>) {
    let reading = async {
        while let Some(LedgerUpdate::Noted(at, entries)) = news.recv().await {
            ledger.note(at, &entries);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the reader did not catch up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_reads_all_ended_events_also_after_the_server_was_killed() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 10)])).await;
    let mut news = transport.ended().await.unwrap();
    let ledger = Ledger::default();
    read_all(&ledger, &mut news).await;
    assert_eq!(ledger.stats().0, 0, "an empty ledger is read at once");

    let many: Vec<Entry> = (0..1_000).map(|number| entry(&format!("e{number}"))).collect();
    for chunk in many.chunks(300) {
        transport.note_ended(chunk).await.unwrap();
    }
    let pid = broker.server.pid().unwrap();
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    eventually("the server is restarted", || async { broker.server.pid().is_some_and(|now| now != pid) }).await;
    eventually("a note is stored", || async { transport.note_ended(&[entry("late")]).await.is_ok() }).await;

    // A reader that was connected all the time, and one that connects later.
    let listening = async {
        while ledger.look_up(&token("f"), &token("late")).is_none() {
            if let Some(LedgerUpdate::Noted(at, entries)) = news.recv().await {
                ledger.note(at, &entries);
            }
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.expect("the live reader did not get the entry");
    let fresh = Ledger::default();
    let another = broker.connect(topology(&[("f", 10)])).await;
    read_all(&fresh, &mut another.ended().await.unwrap()).await;
    for known in [&ledger, &fresh] {
        assert_eq!(known.stats().0, 1_001);
        assert_eq!(known.look_up(&token("f"), &token("e999")), Some(End::Settled));
        assert_eq!(known.look_up(&token("f"), &token("e1000")), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_replaced_only_if_it_was_not_written_meanwhile() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    let (store, key) = (token("s"), token("k"));
    assert!(transport.replace_record(&store, &key, 0, "first".into()).await.unwrap());
    assert!(!transport.replace_record(&store, &key, 0, "again".into()).await.unwrap());
    let revision = transport.put_record(&store, &key, "second".into()).await.unwrap();
    transport.put_record(&store, &key, "third".into()).await.unwrap();
    assert!(!transport.replace_record(&store, &key, revision, "late".into()).await.unwrap());
    assert_eq!(transport.get_record(&store, &key).await.unwrap().unwrap().value, "third");
}

fn ordered() -> Topology {
    let mut topology = topology(&[("f", 100)]);
    topology.flows[0].order_by = Some("device".into());
    topology
}

fn reading(id: &str, device: &str) -> Submission {
    let mut submission = event("f", id, text(id));
    submission.envelope.params.insert("device".into(), device.into());
    submission
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_key_are_delivered_in_order_across_retries_and_processes() {
    let broker = Broker::start().await;
    let transport = broker.connect(ordered()).await;
    for number in 0..4 {
        for device in ["a", "b c"] {
            let id = format!("{}{number}", &device[..1]);
            assert_eq!(transport.submit(reading(&id, device)).await.unwrap(), SubmitAck::Stored);
        }
    }
    assert_eq!(transport.submit(reading("a0", "a")).await.unwrap(), SubmitAck::Duplicate);
    let backlog = transport.backlog(&token("f")).await.unwrap();
    assert_eq!((backlog.interactive, backlog.ended), (8, 0));
    let bounds = SourceBounds { ordered: true, ..bounds(16) };
    let other = broker.connect(ordered()).await;
    let mut sources =
        [open(&transport, "f", Lane::Interactive, bounds).await, open(&other, "f", Lane::Interactive, bounds).await];
    let mut seen: Vec<String> = Vec::new();
    let mut retried = false;
    while seen.len() < 8 {
        let [first, second] = &mut sources;
        let delivery = tokio::time::timeout(PATIENCE, async {
            tokio::select! { delivery = first.next() => delivery, delivery = second.next() => delivery }
        });
        let delivery = delivery.await.expect("no event was delivered").unwrap();
        if delivery.envelope.id.as_str() == "a1" && !retried {
            retried = true;
            delivery.ack.settle(Settlement::Retry(Duration::from_millis(200), "a test".into())).await;
            continue;
        }
        seen.push(delivery.envelope.id.to_string());
        delivery.ack.settle(Settlement::Done).await;
    }
    assert!(retried);
    for device in ["a", "b"] {
        let order: Vec<&String> = seen.iter().filter(|id| id.starts_with(device)).collect();
        assert_eq!(order, ["0", "1", "2", "3"].map(|number| format!("{device}{number}")).iter().collect::<Vec<_>>());
    }
    eventually("the queue is empty", || async {
        let backlog = transport.backlog(&token("f")).await.unwrap();
        backlog.is_empty() && backlog.ended == 8
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_order_is_refused_while_events_from_before_it_wait() {
    let broker = Broker::start().await;
    let plain = broker.connect(topology(&[("f", 100)])).await;
    plain.submit(event("f", "e", text("x"))).await.unwrap();
    let options = nats::ConnectOptions::new(broker.access(), ordered());
    let Err(error) = nats::connect(options.clone()).await else { panic!("an event would never be delivered") };
    assert!(error.to_string().contains("run once with order_by as it was"), "{error}");
    let again = broker.connect(topology(&[("f", 100)])).await;
    let mut source = open(&again, "f", Lane::Interactive, bounds(4)).await;
    next(&mut source).await.ack.settle(Settlement::DoneConfirmed).await;
    nats::connect(options).await.unwrap();
}
