//! The claim store: bodies of events, results and templates, and the removal of orphans.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use nats::JetStream;
use pipeline::spec::ByteSize;
use pipeline::{
    Body, BodyOwner, BoxError, Claim, Content, DeadLetter, Lane, Payload, Rejection, Settlement, Transport,
    TransportError,
};
use support::*;

/// Collections of orphans in three times the time after which a body is one: each asks once for the list of bodies.
const COLLECTIONS: usize = 12;

async fn put(transport: &JetStream, body: BoxStream<'_, Result<Bytes, BoxError>>) -> Result<Claim, TransportError> {
    transport.put_claim(BodyOwner::Event(&token("f")), body).await
}

fn body(pieces: Vec<Bytes>) -> BoxStream<'static, Result<Bytes, BoxError>> {
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

async fn raw(broker: &Broker) -> async_nats::Client {
    let seed = std::fs::read_to_string(broker.dir.path().join("nats/caudal.nk")).unwrap();
    async_nats::ConnectOptions::with_nkey(seed).connect(broker.access().url).await.unwrap()
}

async fn store(broker: &Broker) -> Stream {
    async_nats::jetstream::new(raw(broker).await).get_stream("BLOB").await.unwrap()
}

async fn stored_chunks(broker: &Broker) -> u64 {
    store(broker).await.cached_info().state.messages
}

#[tokio::test]
async fn bodies_of_any_length_are_read_back_whole_and_removed_when_dropped() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    for length in [0, 1, 128 << 10, (128 << 10) + 1, 10 << 20] {
        let bytes = noise(length);
        let pieces = bytes.chunks(50_001).map(Bytes::copy_from_slice).collect();
        let claim = put(&transport, body(pieces)).await.unwrap();
        assert_eq!(claim.length, length as u64);
        assert_eq!(transport.get_claim(&claim).await.unwrap(), bytes);
        let whole = put(&transport, body(vec![bytes.clone()])).await.unwrap();
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
async fn a_claim_that_does_not_match_the_stored_body_is_refused() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    let claim = put(&transport, body(vec![noise(300_000)])).await.unwrap();
    let other = put(&transport, body(vec![noise(300_001)])).await.unwrap();
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
async fn an_upload_that_breaks_off_leaves_no_chunks() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    let broken = stream::iter([Ok(noise(6 << 20)), Err("the client is gone".into())]).boxed();
    let Err(error) = put(&transport, broken).await else { panic!("was accepted") };
    assert!(matches!(error, TransportError::Body(why) if why.to_string() == "the client is gone"));
    assert_eq!(stored_chunks(&broker).await, 0);
    // An upload dropped half-way, as when a handler is dropped, is removed in the background.
    let endless = stream::iter([Ok(noise(6 << 20))]).chain(stream::pending()).boxed();
    let upload = tokio::time::timeout(Duration::from_millis(300), put(&transport, endless)).await;
    assert!(upload.is_err());
    eventually("the chunks are removed", || async { stored_chunks(&broker).await == 0 }).await;
}

#[tokio::test]
async fn the_body_of_a_result_expires_after_the_result() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[])).await;
    let claim = transport.put_claim(BodyOwner::Result, body(vec![noise(300_000)])).await.unwrap();
    let stored = store(&broker).await.get_raw_message(1).await.unwrap();
    let ttl: u64 = stored.headers.get("Nats-TTL").unwrap().as_str().parse().unwrap();
    assert!(ttl > limits().results_max_age.as_secs());
    transport.get_claim(&claim).await.unwrap();
}

async fn put_of(transport: &JetStream, flow: &str) -> Arc<Claim> {
    let flow = token(flow);
    Arc::new(transport.put_claim(BodyOwner::Event(&flow), body(vec![noise(300_000)])).await.unwrap())
}

fn claimed(claim: &Arc<Claim>) -> Payload {
    Payload::Bytes(Content { media_type: "x/y".into(), body: Body::Claim(Arc::clone(claim)) })
}

async fn is_there(transport: &JetStream, claim: &Claim) -> bool {
    transport.get_claim(claim).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_an_event_or_a_dead_letter_is_removed() {
    let broker = Broker::start().await;
    let mut topology = topology(&[("waits", 10), ("died", 10)]);
    topology.limits.claims_orphaned_after = Duration::from_secs(1);
    let transport = broker.connect(topology).await;
    let (waiting, in_letter) = (put_of(&transport, "waits").await, put_of(&transport, "died").await);
    transport.submit(event("waits", "w", claimed(&waiting))).await.unwrap();
    transport.submit(event("died", "d", claimed(&in_letter))).await.unwrap();
    let mut source = open(&transport, "died", Lane::Interactive, bounds(1)).await;
    let delivery = next(&mut source).await;
    let letter = DeadLetter {
        envelope: delivery.envelope,
        payload: delivery.payload,
        stage: "stage".into(),
        faults: 1,
        cause: Rejection::new(500, "broken", "it broke"),
        error: None,
    };
    transport.dead_letter(letter).await.unwrap();
    assert!(delivery.ack.settle(Settlement::DoneConfirmed).await);
    // Stored later than the two, and no event refers to them. While an event waits that is older, its work may end in an
    // event that does, in whichever flow.
    let (beside, alone) = (put_of(&transport, "waits").await, put_of(&transport, "died").await);
    let mut collections = raw(&broker).await.subscribe("$JS.API.STREAM.INFO.BLOB").await.unwrap();
    for _ in 0..COLLECTIONS {
        tokio::time::timeout(PATIENCE, collections.next()).await.expect("nothing is collected").unwrap();
    }
    for body in [&in_letter, &waiting, &beside, &alone] {
        assert!(is_there(&transport, body).await, "an event waits");
    }
    let mut source = open(&transport, "waits", Lane::Interactive, bounds(1)).await;
    let delivery = next(&mut source).await;
    assert!(delivery.ack.settle(Settlement::DoneConfirmed).await);
    eventually("the orphans are removed", || async {
        !is_there(&transport, &beside).await && !is_there(&transport, &alone).await
    })
    .await;
    assert!(is_there(&transport, &in_letter).await, "its dead letter needs it");
}

/// Bodies that requests bring must not take the room that the results of accepted events need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_requests_have_filled_takes_results_and_drops_the_oldest_of_them() {
    let broker = Broker::start().await;
    let mut topology = topology(&[("f", 10)]);
    topology.limits.claims_max_bytes = ByteSize::mib(3);
    let transport = broker.connect(topology).await;
    let flow = token("f");
    let put = async |of| transport.put_claim(of, body(vec![noise(300_000)])).await;
    let mut requests = Vec::new();
    let refused = loop {
        match put(BodyOwner::Request(&flow)).await {
            Ok(claim) => requests.push(claim),
            Err(refused) => break refused,
        }
    };
    assert_eq!(requests.len(), 7, "three quarters of 3 MiB");
    assert!(matches!(&refused, TransportError::Unavailable(why) if why.to_string().contains("full")), "{refused:?}");
    put(BodyOwner::Event(&flow)).await.unwrap();
    let oldest = put(BodyOwner::Result).await.unwrap();
    put(BodyOwner::Result).await.unwrap();
    assert!(put(BodyOwner::Result).await.is_err(), "the broker's own bound");
    // The refusal has made room for the next attempt.
    put(BodyOwner::Result).await.unwrap();
    assert!(!is_there(&transport, &oldest).await);
    for claim in &requests {
        assert!(is_there(&transport, claim).await, "an event may need it");
    }
}
