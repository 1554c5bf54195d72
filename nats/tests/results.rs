//! Results, bodies and records.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise and is told its server by the environment"
)]

mod support;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use pipeline::{Body, BoxError, Claim, Content, Digest, Outcome, OutcomeKind, Published, Transport, TransportError};
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
    assert_eq!(publish(&transport, outcome(OutcomeKind::Accepted, 0, "")).await, Published::Stored);
    assert_eq!(publish(&transport, outcome(OutcomeKind::Data, 1, "mine")).await, Published::Stored);
    assert_eq!(publish(&other, outcome(OutcomeKind::Data, 1, "of another attempt")).await, Published::Refused);
    let (first, second) = tokio::join!(
        publish(&transport, outcome(OutcomeKind::Done, 2, "a")),
        publish(&other, outcome(OutcomeKind::Failed, 2, "b"))
    );
    assert_ne!(first, second, "exactly one terminal is stored");
    assert_eq!(publish(&transport, outcome(OutcomeKind::Cancelled, 3, "")).await, Published::Refused);
    assert_eq!(publish(&other, outcome(OutcomeKind::Data, 3, "late")).await, Published::Refused);
    let stored = transport.outcomes(&request).await.unwrap();
    assert_eq!(stored.len(), 3);
    assert!(matches!(&stored[1].content.body, Body::Inline(bytes) if bytes == "mine"));
    assert!(stored[2].kind.is_terminal());
    assert!(transport.outcomes(&token("never")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_watch_sees_live_what_the_history_tells_later_on_any_gateway() {
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
async fn results_are_followed_again_when_their_consumer_is_removed() {
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

fn body(pieces: Vec<Bytes>) -> stream::BoxStream<'static, Result<Bytes, BoxError>> {
    stream::iter(pieces.into_iter().map(Ok)).boxed()
}

fn noise(length: usize) -> Bytes {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect::<Vec<u8>>().into()
}

async fn stored_chunks(broker: &Broker) -> u64 {
    let seed = std::fs::read_to_string(broker.dir.path().join("nats/caudal.nk")).unwrap();
    let raw = async_nats::ConnectOptions::with_nkey(seed).connect(broker.access().url).await.unwrap();
    let stream = async_nats::jetstream::new(raw).get_stream("BLOB").await.unwrap();
    stream.cached_info().state.messages
}

#[tokio::test]
async fn bodies_of_any_length_come_back_whole_and_go_when_dropped() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    for length in [0, 1, 128 << 10, (128 << 10) + 1, 10 << 20] {
        let bytes = noise(length);
        let pieces = bytes.chunks(50_001).map(Bytes::copy_from_slice).collect();
        let claim = transport.put_claim(body(pieces)).await.unwrap();
        assert_eq!(claim.length, length as u64);
        assert_eq!(transport.get_claim(&claim).await.unwrap(), bytes);
        let whole = transport.put_claim(body(vec![bytes.clone()])).await.unwrap();
        assert_eq!(whole.sha256, claim.sha256);
        for claim in [claim, whole] {
            transport.drop_claim(&claim).await.unwrap();
            transport.drop_claim(&claim).await.unwrap();
            let gone = transport.get_claim(&claim).await;
            assert!(length == 0 || matches!(gone, Err(TransportError::Claim { .. })));
        }
    }
    assert_eq!(stored_chunks(&broker).await, 0);
}

#[tokio::test]
async fn a_claim_that_is_not_what_was_stored_is_refused() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    let claim = transport.put_claim(body(vec![noise(300_000)])).await.unwrap();
    let other = transport.put_claim(body(vec![noise(300_001)])).await.unwrap();
    let altered = Claim { sha256: other.sha256, ..claim.clone() };
    let shorter = Claim { length: claim.length - 1, ..claim.clone() };
    let longer = Claim { length: claim.length + 1, ..claim.clone() };
    let unknown = Claim { id: token("unknown"), ..claim.clone() };
    let endless = Claim { length: u64::MAX, ..claim.clone() };
    let empty = Claim { length: 0, ..claim.clone() };
    for wrong in [altered, shorter, longer, unknown, endless, empty] {
        assert!(matches!(transport.get_claim(&wrong).await, Err(TransportError::Claim { .. })));
    }
    transport.get_claim(&claim).await.unwrap();
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    let broken = stream::iter([Ok(noise(6 << 20)), Err("the client is gone".into())]).boxed();
    let Err(error) = transport.put_claim(broken).await else { panic!("was taken") };
    assert!(matches!(error, TransportError::Body(why) if why.to_string() == "the client is gone"));
    assert_eq!(stored_chunks(&broker).await, 0);
    // Given up half-way, as when a handler is dropped: removed in the background.
    let endless = stream::iter([Ok(noise(6 << 20))]).chain(stream::pending()).boxed();
    let upload = tokio::time::timeout(std::time::Duration::from_millis(300), transport.put_claim(endless)).await;
    assert!(upload.is_err());
    eventually("the chunks are gone", || async { stored_chunks(&broker).await == 0 }).await;
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
    // The same value again is a write of its own.
    transport.put_record(&store, &key, "a".into()).await.unwrap();
    transport.put_record(&store, &key, "b".into()).await.unwrap();
    transport.put_record(&store, &key, "a".into()).await.unwrap();
    assert_eq!(transport.get_record(&store, &key).await.unwrap().unwrap().value, "a");
    assert!(transport.get_record(&token("other"), &key).await.unwrap().is_none());
}
