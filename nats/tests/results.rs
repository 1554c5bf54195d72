//! Results and records.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

mod support;

use bytes::Bytes;
use futures_util::StreamExt;
use nats::{Limits, Topology};
use pipeline::spec::ByteSize;
use pipeline::{Body, Claim, Content, Digest, Outcome, OutcomeKind, ResultAck, Transport};
use support::*;

#[tokio::test]
async fn the_first_terminal_wins_and_nothing_follows_it() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    let other = broker.connect(topology(&[])).await;
    let request = token("r");
    let publish = |transport: &std::sync::Arc<nats::JetStream>, outcome: Outcome| {
        let (transport, request) = (transport.clone(), request.clone());
        async move { transport.publish_outcome(&request, &outcome).await.unwrap() }
    };
    assert_eq!(publish(&transport, outcome(OutcomeKind::Accepted, 0, "")).await, ResultAck::Stored);
    assert_eq!(publish(&transport, outcome(OutcomeKind::Data, 1, "mine")).await, ResultAck::Stored);
    assert_eq!(publish(&other, outcome(OutcomeKind::Data, 1, "of another attempt")).await, ResultAck::Refused);
    let (first, second) = tokio::join!(
        publish(&transport, outcome(OutcomeKind::Done, 2, "a")),
        publish(&other, outcome(OutcomeKind::Failed, 2, "b"))
    );
    assert_ne!(first, second, "exactly one terminal is stored");
    assert_eq!(publish(&transport, outcome(OutcomeKind::Cancelled, 3, "")).await, ResultAck::Refused);
    assert_eq!(publish(&other, outcome(OutcomeKind::Data, 3, "late")).await, ResultAck::Refused);
    let stored = transport.outcomes(&request).await.unwrap();
    assert_eq!(stored.len(), 3);
    assert!(matches!(&stored[1].content.body, Body::Inline(bytes) if bytes == "mine"));
    assert!(stored[2].kind.is_terminal());
    assert!(transport.outcomes(&token("never")).await.unwrap().is_empty());
}

#[tokio::test]
async fn accepted_is_stored_once_also_after_the_end() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    let request = token("r");
    for kind in [OutcomeKind::Data, OutcomeKind::Done] {
        transport.publish_outcome(&request, &outcome(kind, 1, "")).await.unwrap();
    }
    let accepted = outcome(OutcomeKind::Accepted, 0, "");
    assert_eq!(transport.publish_outcome(&request, &accepted).await.unwrap(), ResultAck::Stored);
    assert_eq!(transport.publish_outcome(&request, &accepted).await.unwrap(), ResultAck::Refused);
    let stored = transport.outcomes(&request).await.unwrap();
    let kinds: Vec<OutcomeKind> = stored.iter().map(|outcome| outcome.kind).collect();
    assert_eq!(kinds, [OutcomeKind::Accepted, OutcomeKind::Data, OutcomeKind::Done]);
}

#[tokio::test]
async fn a_watch_gets_live_what_the_history_has_later_on_any_gateway() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    let request = token("r");
    transport.publish_outcome(&request, &outcome(OutcomeKind::Accepted, 0, "")).await.unwrap();
    let gateway = broker.connect(topology(&[])).await;
    let mut watches = [transport.watch(&request), gateway.watch(&request), gateway.watch(&request)];
    let mut foreign = gateway.watch(&token("s"));
    let claim = Claim { id: token("c"), length: 9, sha256: Digest([1; 32]) };
    let file = Content { media_type: "application/pdf".into(), body: Body::Claim(claim.into()) };
    for ordinal in 1..=300 {
        transport.publish_outcome(&request, &outcome(OutcomeKind::Data, ordinal, "token")).await.unwrap();
        for watch in &mut watches {
            assert_eq!(watch.outcomes.recv().await.unwrap().ordinal, ordinal);
        }
    }
    let done = Outcome::new(OutcomeKind::Done, 301, token("f"), file);
    transport.publish_outcome(&request, &done).await.unwrap();
    for watch in &mut watches {
        assert_eq!(format!("{:?}", watch.outcomes.recv().await.unwrap()), format!("{done:?}"));
    }
    assert!(foreign.outcomes.try_recv().is_err());
    let history = gateway.outcomes(&request).await.unwrap();
    assert_eq!(history.len(), 302);
    assert!(history.iter().enumerate().all(|(index, outcome)| outcome.ordinal as usize == index));
    assert_eq!(format!("{:?}", history[301]), format!("{done:?}"));
}

#[tokio::test]
async fn results_are_followed_again_after_their_consumer_was_deleted() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    let request = token("r");
    let mut watch = transport.watch(&request);
    transport.publish_outcome(&request, &outcome(OutcomeKind::Accepted, 0, "")).await.unwrap();
    assert_eq!(watch.outcomes.recv().await.unwrap().ordinal, 0);
    let seed = std::fs::read_to_string(broker.dir.path().join("nats/caudal.nk")).unwrap();
    let raw = async_nats::ConnectOptions::with_nkey(seed).connect(broker.access().url).await.unwrap();
    let stream = async_nats::jetstream::new(raw).get_stream("RES").await.unwrap();
    let names: Vec<_> = stream.consumer_names().collect().await;
    for name in names {
        stream.delete_consumer(&name.unwrap()).await.unwrap();
    }
    transport.publish_outcome(&request, &outcome(OutcomeKind::Done, 1, "")).await.unwrap();
    let done = tokio::time::timeout(PATIENCE, watch.outcomes.recv()).await.unwrap().unwrap();
    assert_eq!(done.ordinal, 1);
}

#[tokio::test]
async fn records_of_clients_take_no_room_of_the_services_own() {
    let broker = Broker::start().await;
    let limits = Limits { records_max_bytes: ByteSize::mib(1), ..limits() };
    let transport = broker.connect(Topology { flows: Vec::new(), limits }).await;
    let large = Bytes::from(vec![0; 200 << 10]);
    let mut refused = false;
    for number in 0..10 {
        let key = token(&format!("r-{number}"));
        refused |= transport.put_record(&token("reports"), &key, large.clone()).await.is_err();
    }
    assert!(refused, "the records of clients are full");
    let (own, key) = (token("caudal-notes"), token("n-1"));
    transport.put_record(&own, &key, large.clone()).await.unwrap();
    assert_eq!(transport.get_record(&own, &key).await.unwrap().unwrap().value, large);
    assert!(transport.replace_record(&own, &token("n-2"), 0, "x".into()).await.unwrap());
}

#[tokio::test]
async fn a_record_is_the_last_one_written() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    let (store, key) = (token("reports"), token("r-1"));
    assert!(transport.get_record(&store, &key).await.unwrap().is_none());
    for round in 0..20 {
        transport.put_record(&store, &key, Bytes::from(format!("v{round}"))).await.unwrap();
        assert_eq!(transport.get_record(&store, &key).await.unwrap().unwrap().value, format!("v{round}"));
    }
    // The same value again is a separate write.
    transport.put_record(&store, &key, "a".into()).await.unwrap();
    transport.put_record(&store, &key, "b".into()).await.unwrap();
    transport.put_record(&store, &key, "a".into()).await.unwrap();
    assert_eq!(transport.get_record(&store, &key).await.unwrap().unwrap().value, "a");
    assert!(transport.get_record(&token("other"), &key).await.unwrap().is_none());
}
