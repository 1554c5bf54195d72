//! A NATS client for the tests: reads the broker's streams and publishes events directly, without the gateway.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{self, AckKind, Context};
use futures_util::StreamExt;
use serde_json::{Value, json};

/// Where [`Broker::refuse`] keeps a stream's config.
const BOUND: &str = "before";
/// Timeout of one request to the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The address of the private broker with this data folder.
pub fn address(nats: &Path) -> String {
    let config = std::fs::read_to_string(nats.join("server.conf")).unwrap();
    let listen = config.lines().find_map(|line| line.strip_prefix("listen: ")).unwrap();
    listen.trim_matches('"').to_owned()
}

/// The broker's reply to a published event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Stored.
    Accepted,
    /// Refused, with the broker's error code.
    Refused(u64),
    /// Not confirmed: stored or not.
    Unknown,
}

/// A result to publish.
pub struct ResultMessage<'a> {
    pub kind: &'static str,
    pub ordinal: u32,
    pub text: &'a str,
}

/// A connection to the broker.
pub struct Broker {
    context: Context,
}

impl Broker {
    /// Connects to the broker of a data folder, with Caudal's own key.
    pub async fn open(data: &Path) -> Self {
        let nats = data.join("nats");
        let seed = std::fs::read_to_string(nats.join("caudal.nk")).unwrap();
        let options = async_nats::ConnectOptions::with_nkey(seed.trim().to_owned()).custom_inbox_prefix("_INBOX_test");
        Self { context: jetstream::new(options.connect(address(&nats)).await.unwrap()) }
    }

    /// Publishes an event with its id and more headers.
    pub async fn send(&self, flow: &str, id: &str, payload: Vec<u8>, more: &[(&'static str, &str)]) -> Sent {
        let mut headers = HeaderMap::new();
        headers.insert("ce-id", id);
        headers.insert("Nats-Msg-Id", id);
        headers.insert("content-type", "application/octet-stream");
        more.iter().for_each(|(name, value)| headers.insert(*name, *value));
        let publish = async {
            let subject = format!("ev.{flow}.interactive");
            self.context.publish_with_headers(subject, headers, payload.into()).await?.await
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, publish).await {
            Ok(Ok(_)) => Sent::Accepted,
            Ok(Err(error)) => {
                let code = std::error::Error::source(&error).and_then(|why| why.downcast_ref::<jetstream::Error>());
                code.map_or(Sent::Unknown, |code| Sent::Refused(code.error_code().0))
            }
            Err(_) => Sent::Unknown,
        }
    }

    /// Publishes a result of a request as a worker does, and waits for the confirmation.
    pub async fn put_result(&self, request: &str, flow: &str, result: ResultMessage<'_>) {
        let ResultMessage { kind, ordinal, text } = result;
        let mut headers = HeaderMap::new();
        headers.insert("Caudal-Kind", kind);
        headers.insert("Caudal-Ordinal", ordinal.to_string());
        headers.insert("Caudal-Flow", flow);
        headers.insert("ce-time", "2026-01-31T12:00:00Z");
        headers.insert("content-type", "text/plain; charset=utf-8");
        let name = if kind == "done" { "end".into() } else { ordinal.to_string() };
        let subject = format!("res.{request}.{name}");
        let stored = self.context.publish_with_headers(subject, headers, text.to_owned().into()).await.unwrap();
        stored.await.unwrap();
    }

    /// A request to the JetStream API.
    async fn request(&self, subject: String, request: &Value) -> Value {
        let response = self.context.request::<_, _, Value>(subject, request);
        tokio::time::timeout(REQUEST_TIMEOUT, response).await.expect("the broker answers").unwrap()
    }

    /// Makes the broker refuse to store in a stream: it is full by a bound that nothing fits in. What is stored stays.
    pub async fn refuse(&self, stream: &str) {
        let full =
            json!({ "max_bytes": 1, "discard": "new", "metadata": { BOUND: self.config(stream).await.to_string() } });
        self.update(stream, &full).await;
    }

    /// Ends [`refuse`](Self::refuse).
    pub async fn store_again(&self, stream: &str) {
        let config = self.config(stream).await;
        let before: Value = serde_json::from_str(config["metadata"][BOUND].as_str().unwrap()).unwrap();
        self.update(stream, &before).await;
    }

    async fn config(&self, stream: &str) -> Value {
        let mut info = self.request(format!("STREAM.INFO.{stream}"), &json!({})).await;
        info["config"].take()
    }

    async fn update(&self, stream: &str, change: &Value) {
        let mut config = self.config(stream).await;
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = self.request(format!("STREAM.UPDATE.{stream}"), &config).await;
        assert!(answer["error"].is_null(), "{stream}: {answer}");
    }

    /// Takes deliveries of the interactive lane of a flow as a worker does, and hands each back.
    pub async fn hand_back(&self, flow: &str, count: usize) {
        let stream = format!("EV-{flow}");
        let consumer: PullConsumer = self.context.get_consumer_from_stream("interactive", stream).await.unwrap();
        let mut messages = consumer.fetch().max_messages(count).expires(REQUEST_TIMEOUT).messages().await.unwrap();
        for _ in 0..count {
            messages.next().await.unwrap().unwrap().ack_with(AckKind::Nak(None)).await.unwrap();
        }
    }

    /// Number of messages in a stream.
    pub async fn messages(&self, stream: &str) -> u64 {
        let info = self.request(format!("STREAM.INFO.{stream}"), &json!({})).await;
        info["state"]["messages"].as_u64().unwrap_or_else(|| panic!("{stream}: {info}"))
    }

    /// Number of events in the queues of all flows, including unacknowledged ones.
    pub async fn waiting(&self) -> u64 {
        let names = self.request("STREAM.NAMES".into(), &json!({})).await;
        let mut waiting = 0;
        for name in names["streams"].as_array().unwrap().iter().filter_map(Value::as_str) {
            if name.starts_with("EV-") {
                waiting += self.messages(name).await;
            }
        }
        waiting
    }

    /// What the queues hold, for the message of a failed test.
    pub async fn describe_queues(&self) -> String {
        let names = self.request("STREAM.NAMES".into(), &json!({})).await;
        let mut text = String::new();
        for name in names["streams"].as_array().unwrap().iter().filter_map(Value::as_str) {
            if !name.starts_with("EV-") {
                continue;
            }
            let stream = self.request(format!("STREAM.INFO.{name}"), &json!({})).await;
            let consumers = self.request(format!("CONSUMER.LIST.{name}"), &json!({})).await;
            text += &format!("{name}: {}\n", stream["state"]);
            for consumer in consumers["consumers"].as_array().unwrap() {
                let (ends, waits) = (&consumer["ack_floor"], &consumer["num_ack_pending"]);
                text += &format!("  {}: acknowledged to {ends}, {waits} unacknowledged, ", consumer["name"]);
                text += &format!("delivered {}, pending {}\n", consumer["delivered"], consumer["num_pending"]);
            }
            if let Some(first) = stream["state"]["first_seq"].as_u64() {
                let message = self.request(format!("STREAM.MSG.GET.{name}"), &json!({ "seq": first })).await;
                text += &format!("  first: {} {}\n", message["message"]["seq"], message["message"]["subject"]);
            }
        }
        text
    }

    /// Number of terminal results by request id.
    pub async fn ends(&self) -> BTreeMap<String, u64> {
        let info = self.request("STREAM.INFO.RES".into(), &json!({ "subjects_filter": "res.*.end" })).await;
        let subjects = info["state"]["subjects"].as_object().cloned().unwrap_or_default();
        let end = |(subject, count): (String, Value)| {
            Some((subject.strip_prefix("res.")?.strip_suffix(".end")?.to_owned(), count.as_u64()?))
        };
        subjects.into_iter().filter_map(end).collect()
    }

    /// Whether the last result of a request was stored before its acceptance.
    pub async fn was_overtaken(&self, request: &str) -> bool {
        let position = async |name: &str| {
            let last = json!({ "last_by_subj": format!("res.{request}.{name}") });
            let message = self.request("STREAM.MSG.GET.RES".into(), &last).await;
            message["message"]["seq"].as_u64().unwrap_or_else(|| panic!("{message}"))
        };
        position("end").await < position("0").await
    }

    /// For the interactive lane of a flow: number of deliveries, and of distinct events delivered.
    pub async fn deliveries(&self, flow: &str) -> (u64, u64) {
        let info = self.request(format!("CONSUMER.INFO.EV-{flow}.interactive"), &json!({})).await;
        let number = |name: &str| info["delivered"][name].as_u64().unwrap_or_else(|| panic!("{info}"));
        (number("consumer_seq"), number("stream_seq"))
    }

    /// Number of deliveries after the first of each event.
    pub async fn redeliveries(&self, flow: &str) -> u64 {
        let (all, first) = self.deliveries(flow).await;
        all - first
    }
}
