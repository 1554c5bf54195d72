//! Events through the queue: delivery, redelivery, refusal, dead letters.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use pipeline::{
    Body, Claim, Content, DeadLetter, Digest, Lane, OutcomeKind, Part, Payload, Rejection, Settlement, SourceBounds,
    Transport, TransportError,
};
use support::*;
use tokio::time::Instant;

#[tokio::test]
async fn every_kind_of_payload_and_every_attribute_survives_the_queue() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let claim = Claim { id: token("c"), length: 3 << 20, sha256: Digest([3; 32]) };
    let claimed = Content { media_type: "image/jpeg".into(), body: Body::Claim(Arc::new(claim)) };
    let part =
        |content: &Content| Part { name: "photo".into(), file_name: Some("ä.jpg".into()), content: content.clone() };
    let payloads = [
        Payload::Bytes(Content::inline("image/png", vec![0, 13, 10, 255])),
        Payload::Bytes(Content::inline("application/json", "not json, but bytes")),
        Payload::Bytes(claimed.clone()),
        Payload::json(serde_json::json!({"a": ["ä", 1.5, null]})),
        Payload::Parts(Arc::from([part(&Content::inline("image/png", vec![9; 1000])), part(&claimed)])),
    ];
    let mut source = open(&transport, "f", Lane::Bulk, bounds(10)).await;
    for (index, payload) in payloads.iter().enumerate() {
        let mut sent = event("f", &format!("e{index}"), payload.clone());
        sent.envelope.lane = Lane::Bulk;
        sent.envelope.request = Some(token("r"));
        sent.envelope.deadline = Some(sent.envelope.time + Duration::from_secs(60));
        sent.envelope.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
        sent.envelope.params.insert("report_id".into(), serde_json::json!("r\r\n1"));
        transport.submit(sent.clone()).await.unwrap();
        let got = next(&mut source).await;
        assert_eq!(format!("{:?}", got.envelope), format!("{:?}", sent.envelope));
        assert_eq!(format!("{:?}", got.payload), format!("{payload:?}"));
        got.ack.settle(Settlement::Done).await;
    }
}

#[tokio::test]
async fn a_dropped_delivery_is_redelivered_and_a_settled_one_is_not() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let mut source = open(&transport, "f", Lane::Interactive, bounds(10)).await;
    transport.submit(event("f", "a", text("x"))).await.unwrap();
    // The same id again: stored once.
    transport.submit(event("f", "a", text("x"))).await.unwrap();
    assert_eq!(transport.backlog(&token("f")).await.unwrap().interactive, 1);
    let first = next(&mut source).await;
    assert_eq!(first.envelope.attempt, 1);
    drop(first);
    let second = next(&mut source).await;
    assert_eq!((second.envelope.id.as_str(), second.envelope.attempt), ("a", 2));
    second.ack.settle(Settlement::Done).await;
    eventually("the backlog is empty", || async { transport.backlog(&token("f")).await.unwrap().interactive == 0 })
        .await;
}

#[tokio::test]
async fn a_retry_is_redelivered_after_its_delay() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let mut source = open(&transport, "f", Lane::Interactive, bounds(10)).await;
    transport.submit(event("f", "a", text("x"))).await.unwrap();
    let first = next(&mut source).await;
    let begun = Instant::now();
    first.ack.settle(Settlement::Retry(Duration::from_millis(300), "a test".into())).await;
    let second = next(&mut source).await;
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    assert_eq!(second.envelope.attempt, 2);
    second.ack.settle(Settlement::Done).await;
}

#[tokio::test]
async fn progress_is_reported_for_events_at_work_and_waiting() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let short = SourceBounds { ack_wait: Duration::from_millis(400), ..bounds(4) };
    let mut source = open(&transport, "f", Lane::Interactive, short).await;
    for id in ["a", "b", "c"] {
        transport.submit(event("f", id, text(id))).await.unwrap();
    }
    let at_work = next(&mut source).await;
    // Three times the ack_wait, while b and c wait in the source.
    tokio::time::sleep(3 * short.ack_wait).await;
    for _ in 0..2 {
        let waited = next(&mut source).await;
        assert_eq!(waited.envelope.attempt, 1, "{}", waited.envelope.id);
        waited.ack.settle(Settlement::Done).await;
    }
    at_work.ack.settle(Settlement::Done).await;
    assert!(is_quiet(&mut source, short.ack_wait).await);
    assert_eq!(transport.backlog(&token("f")).await.unwrap().interactive, 0);
}

#[tokio::test]
async fn a_source_has_no_more_in_flight_than_its_bound_and_leaves_the_rest_to_others() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let other = broker.connect(topology(&[("f", 100)])).await;
    let mut source = open(&transport, "f", Lane::Interactive, bounds(4)).await;
    for index in 0..8 {
        transport.submit(event("f", &format!("e{index}"), text("x"))).await.unwrap();
    }
    let mut in_flight = Vec::new();
    for _ in 0..4 {
        in_flight.push(next(&mut source).await);
    }
    assert!(is_quiet(&mut source, Duration::from_millis(100)).await);
    let mut second = open(&other, "f", Lane::Interactive, bounds(8)).await;
    for _ in 0..4 {
        let delivery = next(&mut second).await;
        assert_eq!(delivery.envelope.attempt, 1);
        delivery.ack.settle(Settlement::Done).await;
    }
    // Closing a source hands back at once the events that its engine did not take, and those that it dropped.
    drop(source);
    drop(in_flight);
    let mut again = Vec::new();
    for _ in 0..4 {
        let delivery = next(&mut second).await;
        again.push(delivery.envelope.attempt);
        delivery.ack.settle(Settlement::Done).await;
    }
    assert_eq!(again, [2; 4]);
}

#[tokio::test]
async fn a_full_queue_refuses_per_lane_and_accepts_again_when_drained() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 5)])).await;
    let submissions = (0..8).map(|index| transport.submit(event("f", &format!("e{index}"), text("x"))));
    let results: Vec<_> = futures_util::stream::iter(submissions).buffered(8).collect().await;
    let full =
        results.iter().filter(|result| matches!(result, Err(TransportError::Full { flow }) if flow.as_str() == "f"));
    assert_eq!(full.count(), 3);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 5);
    let mut bulk = event("f", "b", text("x"));
    bulk.envelope.lane = Lane::Bulk;
    transport.submit(bulk).await.unwrap();
    let mut source = open(&transport, "f", Lane::Interactive, bounds(2)).await;
    next(&mut source).await.ack.settle(Settlement::Done).await;
    eventually("there is room again", || async { transport.submit(event("f", "late", text("x"))).await.is_ok() }).await;
    let backlog = transport.backlog(&token("f")).await.unwrap();
    assert_eq!((backlog.interactive, backlog.bulk), (5, 1));
}

#[tokio::test]
async fn an_event_that_cannot_be_stored_is_refused_before_it_is_sent() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let mut injected = event("f", "a", text("x"));
    injected.envelope.source = "/\r\nNats-Rollup: all".into();
    let mut traced = event("f", "b", text("x"));
    traced.envelope.traceparent = Some("v\nNats-Msg-Id: 1".into());
    let large = event("f", "c", Payload::Bytes(Content::inline("a/b", vec![0; (256 << 10) + 1])));
    for bad in [injected, traced, large] {
        assert!(matches!(transport.submit(bad).await, Err(TransportError::Body(_))));
    }
    let nowhere = transport.submit(event("g", "d", text("x"))).await;
    assert!(matches!(nowhere, Err(TransportError::NoFlow(flow)) if flow.as_str() == "g"));
    assert_eq!(transport.backlog(&token("f")).await.unwrap().interactive, 0);
    // The largest events that are accepted are delivered.
    let most = Payload::Bytes(Content::inline("a/b", vec![7; 256 << 10]));
    transport.submit(event("f", "d", most)).await.unwrap();
    let json = Payload::json(serde_json::json!("x".repeat((1 << 20) - 2)));
    transport.submit(event("f", "e", json)).await.unwrap();
    let mut source = open(&transport, "f", Lane::Interactive, bounds(2)).await;
    next(&mut source).await.ack.settle(Settlement::Done).await;
    next(&mut source).await.ack.settle(Settlement::Done).await;
}

#[tokio::test]
async fn an_event_that_cannot_be_decoded_becomes_a_dead_letter() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let raw = support_client::connect(&broker, "publisher.nk").await;
    let jetstream = async_nats::jetstream::new(raw);
    for (name, value) in [("ce-id", "a.b"), ("ce-id", ">"), ("ce-type", "no id at all")] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(name, value);
        jetstream.publish_with_headers("ev.f.bulk", headers, "payload".into()).await.unwrap().await.unwrap();
    }
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", "good");
    jetstream.publish_with_headers("ev.f.bulk", headers, "payload".into()).await.unwrap().await.unwrap();
    let mut source = open(&transport, "f", Lane::Bulk, bounds(10)).await;
    let good = next(&mut source).await;
    assert_eq!(good.envelope.id.as_str(), "good");
    good.ack.settle(Settlement::Done).await;
    let letters = transport.dead_letters(Some(&token("f")), 0, 10).await.unwrap();
    let codes: Vec<_> = letters.iter().map(|stored| stored.letter.cause.code.as_ref()).collect();
    assert_eq!(codes, ["bad_id", "bad_id", "no_id"]);
    assert!(
        letters.iter().all(|stored| &*stored.letter.stage == "intake" && stored.letter.envelope.lane == Lane::Bulk)
    );
    eventually("nothing is left in the queue", || async { transport.backlog(&token("f")).await.unwrap().bulk == 0 })
        .await;
}

/// The header of each dead letter, oldest first.
async fn dead_letter_headers(broker: &Broker, name: &str) -> Vec<Option<String>> {
    let client = support_client::connect(broker, "caudal.nk").await;
    let stream = async_nats::jetstream::new(client).get_stream("DEAD").await.unwrap();
    let mut found = Vec::new();
    for sequence in 1..=stream.get_info().await.unwrap().state.last_sequence {
        let letter = stream.get_raw_message(sequence).await.unwrap();
        found.push(letter.headers.get(name).map(|value| value.as_str().to_owned()));
    }
    found
}

#[tokio::test]
async fn a_dead_letter_keeps_the_message_id_of_its_event() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let sent = event("f", "failed", text("x"));
    let letter = DeadLetter {
        envelope: sent.envelope,
        payload: sent.payload,
        stage: "embed".into(),
        faults: 1,
        cause: Rejection::internal("x"),
        error: None,
    };
    transport.dead_letter(letter).await.unwrap();
    let jetstream = async_nats::jetstream::new(support_client::connect(&broker, "publisher.nk").await);
    let mut source = open(&transport, "f", Lane::Bulk, bounds(10)).await;
    for (count, id) in [(2, Some("unreadable")), (3, None)] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("ce-id", "a.b");
        id.into_iter().for_each(|id| headers.insert("Nats-Msg-Id", id));
        jetstream.publish_with_headers("ev.f.bulk", headers, "x".into()).await.unwrap().await.unwrap();
        assert!(is_quiet(&mut source, Duration::from_millis(500)).await);
        eventually("the dead letter is stored", || async {
            transport.dead_letters(None, 0, 10).await.unwrap().len() == count
        })
        .await;
    }
    let ids = dead_letter_headers(&broker, "Caudal-MessageId").await;
    assert_eq!(ids, [Some("failed".to_owned()), Some("unreadable".to_owned()), None]);
    let own = dead_letter_headers(&broker, "Nats-Msg-Id").await;
    assert!(own.iter().all(|id| id.as_deref().is_some_and(|id| id != "failed" && id != "unreadable")), "{own:?}");
}

#[tokio::test]
async fn a_flow_has_a_worker_while_one_asks_for_its_events_or_has_some() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100), ("g", 100)])).await;
    let without = || async { transport.flows_without_worker().await.unwrap() };
    assert_eq!(without().await, [token("f"), token("g")]);
    let mut source = open(&transport, "g", Lane::Interactive, bounds(1)).await;
    eventually("the worker of g asks", || async { without().await == [token("f")] }).await;
    // It has all it has room for, and asks for nothing.
    transport.submit(event("g", "a", text("x"))).await.unwrap();
    let held = next(&mut source).await;
    assert_eq!(without().await, [token("f")]);
    held.ack.settle(Settlement::Done).await;
    drop(source);
    eventually("the worker of g is gone", || async { without().await.len() == 2 }).await;
}

#[tokio::test]
async fn a_subject_that_is_no_lane_is_stored_in_no_stream() {
    let broker = Broker::start().await;
    let _transport = broker.connect(topology(&[("f", 100)])).await;
    let jetstream = async_nats::jetstream::new(support_client::connect(&broker, "publisher.nk").await);
    for subject in ["ev.f.other", "ev.f.>", "ev.f.*", "ev.*.bulk", "ev.nobody.bulk"] {
        let stored = jetstream.publish(subject, "x".into()).await.unwrap().await;
        assert!(stored.is_err(), "{subject}");
    }
}

#[tokio::test]
async fn an_event_that_is_never_settled_ends_as_dead_letter_and_failed_result() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let limited = SourceBounds { max_deliver: 2, ..bounds(10) };
    let mut source = open(&transport, "f", Lane::Interactive, limited).await;
    let mut poison = event("f", "p", text("boom"));
    poison.envelope.request = Some(token("p"));
    transport.submit(poison).await.unwrap();
    transport.publish_outcome(&token("p"), &outcome(OutcomeKind::Accepted, 0, "")).await.unwrap();
    transport.publish_outcome(&token("p"), &outcome(OutcomeKind::Progress, 1, "")).await.unwrap();
    for attempt in 1..=2 {
        let delivery = next(&mut source).await;
        assert_eq!(delivery.envelope.attempt, attempt);
        drop(delivery);
    }
    // The poison event is dead-lettered when the next event is asked for.
    assert!(is_quiet(&mut source, Duration::from_millis(500)).await);
    let letters = transport.dead_letters(None, 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].letter.cause.code, "never_settled");
    let outcomes = transport.outcomes(&token("p")).await.unwrap();
    assert_eq!(kinds(&outcomes), [(OutcomeKind::Accepted, 0), (OutcomeKind::Progress, 1), (OutcomeKind::Failed, 2)]);
}

#[tokio::test]
async fn dead_letters_are_stored_listed_and_removed() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100), ("g", 100)])).await;
    for (flow, id) in [("f", "a"), ("g", "b"), ("f", "c")] {
        let sent = event(flow, id, Payload::json(serde_json::json!({"id": id})));
        let letter = DeadLetter {
            envelope: sent.envelope,
            payload: sent.payload,
            stage: "embed".into(),
            faults: 3,
            cause: Rejection::internal("line one\nline two"),
            error: Some("first\nsecond".into()),
        };
        // Twice, as after a settlement that was not confirmed.
        transport.dead_letter(letter.clone()).await.unwrap();
        transport.dead_letter(letter).await.unwrap();
    }
    let all = transport.dead_letters(None, 0, 10).await.unwrap();
    assert_eq!(all.iter().map(|stored| stored.letter.envelope.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(all[0].letter.cause, Rejection::internal("line one\nline two"));
    assert_eq!((all[0].letter.faults, all[0].letter.error.as_deref()), (3, Some("first second")));
    assert!(matches!(&all[2].letter.payload, Payload::Json(value) if value["id"] == "c"));
    transport.remove_dead_letter(all[0].id).await.unwrap();
    transport.remove_dead_letter(all[0].id).await.unwrap();
    let left = transport.dead_letters(Some(&token("f")), 0, 10).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].letter.envelope.id.as_str(), "c");
}

#[tokio::test]
async fn every_event_of_a_flow_that_answers_is_a_request() {
    let broker = Broker::start().await;
    let flows = nats::Topology { flows: vec![flow("f", 10, true)], limits: limits() };
    let transport = broker.connect(flows).await;
    transport.submit(event("f", "a", text("x"))).await.unwrap();
    let mut source = open(&transport, "f", Lane::Interactive, bounds(1)).await;
    assert_eq!(next(&mut source).await.envelope.request, Some(token("a")));
}

#[tokio::test]
async fn a_changed_declaration_updates_the_queue_and_a_stream_in_the_way_is_named() {
    let broker = Broker::start().await;
    drop(broker.connect(topology(&[("f", 2)])).await);
    let transport = broker.connect(topology(&[("f", 4)])).await;
    for id in ["a", "b", "c", "d"] {
        transport.submit(event("f", id, text("x"))).await.unwrap();
    }
    let own = async_nats::jetstream::new(support_client::connect(&broker, "caudal.nk").await);
    let foreign = async_nats::jetstream::stream::Config {
        name: "EV-g".into(),
        subjects: vec!["ev.g.>".into()],
        ..Default::default()
    };
    own.create_stream(foreign).await.unwrap();
    let options = nats::ConnectOptions::new(broker.access(), topology(&[("g", 4)]));
    let Err(error) = nats::connect(options).await else { panic!("was accepted") };
    assert!(error.to_string().contains("EV-g"), "{error}");
}

#[tokio::test]
async fn closing_hands_events_back_and_ends_the_sources() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let mut source = open(&transport, "f", Lane::Interactive, bounds(10)).await;
    for id in ["a", "b"] {
        transport.submit(event("f", id, text("x"))).await.unwrap();
    }
    next(&mut source).await.ack.settle(Settlement::Done).await;
    transport.close().await;
    while let Some(delivery) = tokio::time::timeout(PATIENCE, source.next()).await.expect("the source did not end") {
        drop(delivery);
    }
    let other = broker.connect(topology(&[("f", 100)])).await;
    let mut source = open(&other, "f", Lane::Interactive, bounds(10)).await;
    assert_eq!(next(&mut source).await.envelope.id.as_str(), "b");
}

mod support_client {
    use super::Broker;

    /// A plain client with one of the server's keys.
    pub async fn connect(broker: &Broker, key: &str) -> async_nats::Client {
        let seed = std::fs::read_to_string(broker.dir.path().join("nats").join(key)).unwrap();
        async_nats::ConnectOptions::with_nkey(seed).connect(broker.access().url).await.unwrap()
    }
}
