//! Events from other programs: what the codec reads, how an event ends that it refuses, and what the publisher's key may do.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

mod support;

use std::sync::Arc;

use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, HeaderMap};
use nats::JetStream;
use pipeline::{Body, Lane, Outcome, OutcomeKind, Payload, Rejection, Settlement, Source, Transport};
use support::*;

const PARTS: &str = "application/vnd.caudal.parts+json";
const KIB: usize = 1 << 10;

/// Headers, body, and the code with which the event is refused.
type Refused = (&'static [(&'static str, &'static str)], Vec<u8>, &'static str);

/// A flow `f` that answers, its source, and a publisher.
struct Bench {
    broker: Broker,
    transport: Arc<JetStream>,
    source: Box<dyn Source>,
    publisher: Context,
}

impl Bench {
    async fn start() -> Self {
        let broker = Broker::start().await;
        let topology = nats::Topology { flows: vec![flow("f", 100, true)], limits: limits() };
        let transport = broker.connect(topology).await;
        let source = open(&transport, "f", Lane::Bulk, bounds(10)).await;
        let publisher = jetstream::new(publisher(&broker, ConnectOptions::new()).await);
        Self { broker, transport, source, publisher }
    }

    async fn publish(&self, given: &[(&str, &str)], body: Vec<u8>) {
        let given = given.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers: HeaderMap = given.collect();
        self.publisher.publish_with_headers("ev.f.bulk", headers, body.into()).await.unwrap().await.unwrap();
    }

    /// Publishes an event that must be refused. One that is read follows, so that it has been settled.
    async fn refused(&mut self, given: &[(&str, &str)], body: Vec<u8>) {
        self.publish(given, body).await;
        self.publish(&[("Nats-Msg-Id", token_of_next().as_str())], b"good".to_vec()).await;
        let good = next(&mut self.source).await;
        assert!(good.envelope.id.as_str().starts_with("good-"), "was read: {given:?}");
        good.ack.settle(Settlement::Done).await;
    }

    async fn ends(&self, id: &str) -> Vec<Outcome> {
        self.transport.outcomes(&token(id)).await.unwrap()
    }

    /// The event and the cause's code of each dead letter.
    async fn letters(&self) -> Vec<(String, String)> {
        let letters = self.transport.dead_letters(None, 0, 100).await.unwrap();
        let told = |stored: &pipeline::StoredDeadLetter| {
            (stored.letter.envelope.id.to_string(), stored.letter.cause.code.to_string())
        };
        letters.iter().map(told).collect()
    }
}

fn token_of_next() -> pipeline::Token {
    token(&format!("good-{}", pipeline::Token::random().as_str().chars().take(20).collect::<String>()))
}

async fn publisher(broker: &Broker, options: ConnectOptions) -> Client {
    let seed = std::fs::read_to_string(broker.dir.path().join("nats/publisher.nk")).unwrap();
    options.nkey(seed).connect(broker.access().url).await.unwrap()
}

#[tokio::test]
async fn a_refused_event_fails_and_is_dead_lettered_under_its_own_id() {
    let mut bench = Bench::start().await;
    let refused: [Refused; 12] = [
        (&[("ce-id", "long"), ("content-type", "image/jpeg")], vec![0; 256 * KIB + 1], "body_too_long"),
        (&[("Ce-Id", "longer"), ("Content-Type", "image/jpeg")], vec![0; (1 << 20) + 64 * KIB], "body_too_long"),
        (&[("Nats-Msg-Id", "msg"), ("ce-time", "noon")], b"x".to_vec(), "bad_header"),
        (&[("ce-id", "a.b"), ("Nats-Msg-Id", "other")], b"x".to_vec(), "bad_id"),
        (&[("ce-id", "req"), ("Caudal-Request", "a b")], b"x".to_vec(), "bad_id"),
        (&[("ce-id", "late"), ("caudal-deadline", "soon")], b"x".to_vec(), "bad_header"),
        (&[("ce-id", "params"), ("Caudal-Params", "[1]")], b"x".to_vec(), "bad_header"),
        (&[("ce-id", "claim"), ("Caudal-Claim", "{}")], Vec::new(), "bad_header"),
        (&[("ce-id", "json"), ("content-type", "application/json")], b"{".to_vec(), "bad_json"),
        (&[("ce-id", "deep"), ("content-type", "Application/JSON")], vec![b'['; 100_000], "bad_json"),
        (&[("ce-id", "parts"), ("content-type", PARTS)], br#"[{"name": "a", "data": "%"}]"#.to_vec(), "bad_parts"),
        (&[("ce-id", "wide"), ("content-type", PARTS)], br#"{"name": "a"}"#.to_vec(), "bad_parts"),
    ];
    let mut wanted = Vec::new();
    for (given, body, code) in refused {
        let id = given.iter().filter(|(name, _)| name.ends_with(['d', 'D'])).find(|(_, id)| *id != "a.b").unwrap().1;
        bench.refused(given, body).await;
        let ends = bench.ends(id).await;
        assert_eq!(kinds(&ends), [(OutcomeKind::Failed, 0)], "{id}");
        let Body::Inline(problem) = &ends[0].content.body else { panic!("{id}") };
        let problem: Rejection = serde_json::from_slice(problem).unwrap();
        assert_eq!(problem.code, code, "{id}: {problem}");
        wanted.push((id.to_owned(), code.to_owned()));
    }
    assert_eq!(bench.letters().await, wanted);
    eventually("nothing is left in the queue", || async {
        bench.transport.backlog(&token("f")).await.unwrap().bulk == 0
    })
    .await;
}

#[tokio::test]
async fn a_refused_event_ends_the_request_that_it_names() {
    let mut bench = Bench::start().await;
    bench.refused(&[("ce-id", "e1"), ("Caudal-Request", "r1"), ("ce-time", "noon")], b"x".to_vec()).await;
    assert_eq!(kinds(&bench.ends("r1").await), [(OutcomeKind::Failed, 0)]);
    assert!(bench.ends("e1").await.is_empty());
}

/// Headers that fit into the event, but together with those of its dead letter not into a message.
#[tokio::test]
async fn long_headers_do_not_keep_an_event_from_its_end() {
    let mut bench = Bench::start().await;
    let (long, longest) = ("x".repeat(40 * KIB), "x".repeat(65_300));
    for given in [
        [("ce-id", "message-id"), ("Nats-Msg-Id", &*long), ("ce-time", "noon")],
        [("ce-id", "time"), ("ce-time", &*long), ("x-a", "b")],
        [("ce-id", "params"), ("Caudal-Params", &*format!(r#"{{"a": "{long}"}}"#)), ("x-a", "b")],
        [("ce-id", "foreign"), ("x-foreign", &*longest), ("ce-time", "noon")],
        [("ce-id", "media"), ("content-type", &*long), ("x-a", "b")],
    ] {
        bench.refused(&given, b"x".to_vec()).await;
        assert_eq!(kinds(&bench.ends(given[0].1).await), [(OutcomeKind::Failed, 0)], "{}", given[0].1);
    }
    assert_eq!(bench.letters().await.len(), 5);
}

#[tokio::test]
async fn names_and_types_in_any_case_and_base64_as_libraries_write_it_are_read() {
    let mut bench = Bench::start().await;
    for (id, media_type, data) in [
        ("capitals", "Application/Vnd.Caudal.Parts+JSON; Charset=UTF-8", "aGVsbG8="),
        ("lines", PARTS, "aGVs\\nbG8=\\n"),
        ("unpadded", PARTS, "aGVsbG8"),
    ] {
        let body = format!(r#"[{{"name": "photo", "data": "{data}"}}]"#).into_bytes();
        bench.publish(&[("CE-ID", id), ("Content-Type", media_type), ("CAUDAL-PARAMS", r#"{"a": 1}"#)], body).await;
        let read = next(&mut bench.source).await;
        assert_eq!((read.envelope.id.as_str(), read.envelope.params["a"].as_u64()), (id, Some(1)));
        let Payload::Parts(parts) = &read.payload else { panic!("{id}") };
        assert!(matches!(&parts[0].content.body, Body::Inline(bytes) if &bytes[..] == b"hello"), "{id}");
        read.ack.settle(Settlement::Done).await;
    }
}

#[tokio::test]
async fn the_publishers_key_works_as_client_libraries_use_it() {
    let bench = Bench::start().await;
    for prefix in ["_INBOX", "_APP", "_INBOX_shop.web"] {
        let options = ConnectOptions::new().custom_inbox_prefix(prefix);
        let jetstream = jetstream::new(publisher(&bench.broker, options).await);
        assert!(jetstream.query_account().await.is_ok(), "{prefix}");
        let mut headers = HeaderMap::new();
        headers.insert("ce-id", prefix.replace('.', "-"));
        jetstream.publish_with_headers("ev.f.bulk", headers, "x".into()).await.unwrap().await.unwrap();
        let results = jetstream.get_stream("RES").await;
        assert!(results.is_ok(), "{prefix}");
    }
}

#[tokio::test]
async fn the_publishers_key_reads_no_events_and_no_answers_of_the_service() {
    let mut bench = Bench::start().await;
    let client = publisher(&bench.broker, ConnectOptions::new()).await;
    // A subscription to everything is allowed, and gets what is permitted.
    let mut everything = client.subscribe(">").await.unwrap();
    for subject in ["ev.>", "_INBOX_caudal.>", "rec.>", "own.>", "blob.>", "alive.>", "ledger", "$JS.API.>"] {
        client.subscribe(subject).await.unwrap();
    }
    client.flush().await.unwrap();
    bench.refused(&[("ce-id", "e1"), ("ce-time", "noon")], b"x".to_vec()).await;
    let mut seen = Vec::new();
    while !seen.iter().any(|subject: &String| subject == "res.e1.end") {
        let message = tokio::time::timeout(PATIENCE, futures_util::StreamExt::next(&mut everything)).await;
        seen.push(message.unwrap().unwrap().subject.to_string());
    }
    let allowed = |subject: &String| ["res.", "dead.", "_INBOX."].iter().any(|root| subject.starts_with(root));
    assert!(seen.iter().all(allowed), "{seen:?}");
}
