//! Follows a stream: every message once and in order, across interruptions.
//!
//! The messages come from a push consumer. After an interruption a new one is created after the last message read, so
//! that none is missed and none is read twice. This does not use the client library's ordered consumer: interrupted
//! before its first delivery, that one starts again at the first message of the stream, and it retries for ever if the
//! stream is gone.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use async_nats::{Client, Message, StatusCode, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use pipeline::{BoxError, Token};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::link::connection::{ANSWER_TIMEOUT, Connection};
use crate::wire::delivery_position::DeliveryPosition;
use crate::wire::headers;

/// How often the broker sends a sign of life while there are no messages.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Without any message or heartbeat for this long, the consumer is considered gone.
const SILENCE_LIMIT: Duration = Duration::from_millis(3_500);
/// Time after which the broker removes a consumer without a subscriber.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);
/// Pause before a new consumer is created, doubled up to 64 times while that fails.
const PAUSE: Duration = Duration::from_millis(20);
/// Time for deleting a consumer that is no longer used. If that fails, the broker removes it after
/// [`INACTIVE_THRESHOLD`].
const DELETE_TIMEOUT: Duration = Duration::from_millis(200);

/// Receives the messages of a followed stream.
#[async_trait]
pub trait StreamReader: Send {
    /// Called with each message, once and in order.
    async fn read(&mut self, message: Message);

    /// Called when everything stored so far has been read; again after an interruption.
    async fn caught_up(&mut self) {}

    /// Called when messages may be missing: the stream lost its last messages, or was deleted and created again.
    async fn lost(&mut self) {}
}

/// First message to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// The first one that is stored from now on.
    Now,
    /// The oldest one.
    Oldest,
}

/// Follows one stream and passes its messages to a [`StreamReader`].
pub struct Follower<R> {
    stream: &'static str,
    start: StartAt,
    reader: R,
    connection: Connection,
    stop: CancellationToken,
    /// Last stream sequence read; messages at or below it are not read again.
    last_read: u64,
    /// Creation time of the stream; a different time means that it was deleted and created again.
    created: Option<time::OffsetDateTime>,
}

/// A push consumer that is delivering.
pub struct PushConsumer {
    messages: Subscriber,
    name: String,
    established: watch::Receiver<u64>,
    /// Consumer sequence of the next message.
    next: u64,
}

/// Why delivery from a consumer ended.
enum DeliveryEnd {
    Stopped,
    Interrupted(&'static str),
}

impl<R: StreamReader> Follower<R> {
    pub fn new(
        stream: &'static str,
        start: StartAt,
        reader: R,
        connection: Connection,
        stop: CancellationToken,
    ) -> Self {
        Self { stream, start, reader, connection, stop, last_read: 0, created: None }
    }

    /// Creates the consumer: no message stored after this returns is missed.
    pub async fn begin(&mut self) -> Result<PushConsumer, BoxError> {
        let context = &self.connection.context;
        let mut established = self.connection.established.clone();
        established.mark_unchanged();
        let stream = context.get_stream(self.stream).await?;
        let info = stream.cached_info();
        let last = info.state.last_sequence;
        self.check_continuity(info.created, last).await;
        if last <= self.last_read || info.state.messages == 0 {
            self.reader.caught_up().await;
        }
        let context = &self.connection.context;
        let client = context.client();
        let name = format!("caudal-{}", Token::random());
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await?;
        let config = push_config(name.clone(), inbox, self.last_read + 1);
        context.create_consumer_on_stream(config, self.stream).await?;
        Ok(PushConsumer { messages, name, established, next: 1 })
    }

    /// Sets where to read from, and tells the reader if messages may be missing.
    async fn check_continuity(&mut self, created: time::OffsetDateTime, last: u64) {
        match self.created {
            None if self.start == StartAt::Now => self.last_read = last,
            None => {}
            Some(before) if before != created || last < self.last_read => {
                let (stream, last_read) = (self.stream, self.last_read);
                tracing::error!(stream, last_read, last, "the stream lost its last messages or was created again");
                self.last_read = if self.start == StartAt::Now { last } else { 0 };
                self.reader.lost().await;
            }
            Some(_) => {}
        }
        self.created = Some(created);
    }

    /// Reads until `stop` is cancelled.
    pub async fn run(mut self, mut consumer: PushConsumer) {
        loop {
            match self.read_from(&mut consumer).await {
                DeliveryEnd::Stopped => break,
                DeliveryEnd::Interrupted(why) => {
                    tracing::debug!(stream = self.stream, why, "following the stream was interrupted");
                }
            }
            self.delete(&consumer.name).await;
            let Some(again) = self.begin_again().await else { return };
            consumer = again;
        }
        self.delete(&consumer.name).await;
    }

    async fn begin_again(&mut self) -> Option<PushConsumer> {
        let mut failures = 0;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(PAUSE * (1 << failures.min(6))) => {}
            }
            match tokio::time::timeout(3 * ANSWER_TIMEOUT, self.begin()).await {
                Ok(Ok(consumer)) => return Some(consumer),
                Ok(Err(error)) => {
                    tracing::warn!(stream = self.stream, %error, "the stream cannot be followed, trying again")
                }
                Err(_) => tracing::warn!(stream = self.stream, "following the stream timed out, trying again"),
            }
            failures += 1;
        }
    }

    async fn read_from(&mut self, consumer: &mut PushConsumer) -> DeliveryEnd {
        let client = self.connection.client();
        let stop = self.stop.clone();
        loop {
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return DeliveryEnd::Stopped,
                _ = consumer.established.changed() => return DeliveryEnd::Interrupted("reconnected"),
                message = tokio::time::timeout(SILENCE_LIMIT, consumer.messages.next()) => message,
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return DeliveryEnd::Interrupted("the subscription ended"),
                Err(_) => return DeliveryEnd::Interrupted("no heartbeat"),
            };
            let interrupted = match message.status {
                None => self.take(message, &mut consumer.next).await,
                Some(StatusCode::IDLE_HEARTBEAT) => {
                    let interrupted = answer_flow_control(&client, &message, consumer.next).await;
                    // A heartbeat means that there is nothing more to deliver. Flow control has the same status, but a
                    // reply.
                    if interrupted.is_none() && message.reply.is_none() {
                        self.reader.caught_up().await;
                    }
                    interrupted
                }
                Some(_) => Some("the consumer ended"),
            };
            if let Some(why) = interrupted {
                return DeliveryEnd::Interrupted(why);
            }
        }
    }

    /// Passes a message to the reader. A gap in the consumer's sequence is an interruption.
    async fn take(&mut self, message: Message, next: &mut u64) -> Option<&'static str> {
        let Some(position) = message.reply.as_ref().and_then(|reply| DeliveryPosition::parse(reply)) else {
            return Some("a message has no position");
        };
        if position.consumer_sequence != *next {
            return Some("a message is missing");
        }
        *next += 1;
        if position.stream_sequence > self.last_read {
            self.last_read = position.stream_sequence;
            self.reader.read(message).await;
        }
        if position.pending == 0 {
            self.reader.caught_up().await;
        }
        None
    }

    async fn delete(&self, consumer: &str) {
        let delete = self.connection.context.delete_consumer_from_stream(consumer, self.stream);
        let _ = tokio::time::timeout(DELETE_TIMEOUT, delete).await;
    }
}

fn push_config(name: String, deliver_subject: String, start_sequence: u64) -> push::Config {
    push::Config {
        name: Some(name),
        deliver_subject,
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
        ack_policy: AckPolicy::None,
        max_deliver: 1,
        flow_control: true,
        idle_heartbeat: HEARTBEAT,
        inactive_threshold: INACTIVE_THRESHOLD,
        memory_storage: true,
        num_replicas: 1,
        ..Default::default()
    }
}

/// Answers flow control, and compares the last consumer sequence that the broker sent with the messages that arrived.
async fn answer_flow_control(client: &Client, message: &Message, next: u64) -> Option<&'static str> {
    let stalled = message.headers.as_ref().and_then(|all| headers::get(all, "Nats-Consumer-Stalled"));
    let flow_control = message.reply.as_ref().map(|reply| reply.to_string()).or(stalled.map(str::to_owned));
    if let Some(subject) = flow_control {
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, client.publish(subject, Bytes::new())).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Some("flow control could not be answered");
        }
    }
    let last: Option<u64> =
        message.headers.as_ref().and_then(|all| headers::get(all, "Nats-Last-Consumer")?.parse().ok());
    match last {
        Some(last) if last + 1 != next => Some("the last message is missing"),
        _ => None,
    }
}
