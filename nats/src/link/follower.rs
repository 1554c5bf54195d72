//! Follows a stream: every message once and in order, across interruptions.
//!
//! A push consumer of its own delivers; after an interruption it is made anew behind the last message seen, so nothing is
//! missed and nothing comes twice. The consumer is kept here and not by the client library's own ordered consumer, which
//! starts over from the first message of the stream when it is interrupted before the first delivery, and retries for ever
//! when the stream is gone.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use async_nats::{Client, Message, StatusCode, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use pipeline::{BoxError, Token};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::codec;
use crate::connection::{ANSWER_LIMIT, Connection};
use crate::delivery::Position;

/// How often the broker shows that the consumer is alive while there are no results.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Several heartbeats missing mean that it is gone.
const SILENCE_LIMIT: Duration = Duration::from_millis(3_500);
/// When the broker removes a consumer nobody listens to.
const UNHEARD_LIMIT: Duration = Duration::from_secs(30);
/// Pause before an interrupted consumer is made again, doubled up to 64 times while that fails.
const PAUSE: Duration = Duration::from_millis(20);

/// What is done with the messages of a followed stream.
#[async_trait]
pub trait Reader: Send {
    /// The next message, each once and in order.
    async fn read(&mut self, message: Message);

    /// Everything stored so far has been read; told again after an interruption.
    async fn caught_up(&mut self) {}

    /// Messages may be missing: the stream lost its end, or was made anew.
    async fn lost(&mut self) {}
}

/// Where following begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With what is stored from now on.
    Now,
    /// With the oldest message.
    Oldest,
}

/// See the module.
pub struct Follower<R> {
    stream: &'static str,
    begin: Begin,
    reader: R,
    connection: Connection,
    stop: CancellationToken,
    /// Last stream sequence seen; everything at or below is old.
    seen: u64,
    /// When the stream was made: another time means another stream.
    made: Option<time::OffsetDateTime>,
}

/// A consumer that is delivering.
pub struct Following {
    messages: Subscriber,
    consumer: String,
    up: watch::Receiver<u64>,
    /// Consumer sequence of the next message.
    next: u64,
}

/// How following ended.
enum Ended {
    Stopped,
    Interrupted(&'static str),
}

impl<R: Reader> Follower<R> {
    pub fn new(stream: &'static str, begin: Begin, reader: R, connection: Connection, stop: CancellationToken) -> Self {
        Self { stream, begin, reader, connection, stop, seen: 0, made: None }
    }

    /// Makes the consumer: from here on nothing stored is missed.
    pub async fn begin(&mut self) -> Result<Following, BoxError> {
        let context = &self.connection.context;
        let mut up = self.connection.up.clone();
        up.mark_unchanged();
        let stream = context.get_stream(self.stream).await?;
        let info = stream.cached_info();
        let (made, last) = (info.created, info.state.last_sequence);
        match self.made {
            None if self.begin == Begin::Now => self.seen = last,
            None => {}
            Some(before) if before != made || last < self.seen => {
                tracing::error!(
                    stream = self.stream,
                    seen = self.seen,
                    last,
                    "the stream lost its end or was made anew"
                );
                self.seen = if self.begin == Begin::Now { last } else { 0 };
                self.reader.lost().await;
            }
            Some(_) => {}
        }
        self.made = Some(made);
        if last <= self.seen || info.state.messages == 0 {
            self.reader.caught_up().await;
        }
        let client = context.client();
        let consumer = format!("caudal-{}", Token::random());
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await?;
        let config = push::Config {
            name: Some(consumer.clone()),
            deliver_subject: inbox,
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.seen + 1 },
            ack_policy: AckPolicy::None,
            max_deliver: 1,
            flow_control: true,
            idle_heartbeat: HEARTBEAT,
            inactive_threshold: UNHEARD_LIMIT,
            memory_storage: true,
            num_replicas: 1,
            ..Default::default()
        };
        context.create_consumer_on_stream(config, self.stream).await?;
        Ok(Following { messages, consumer, up, next: 1 })
    }

    /// Runs until stopped.
    pub async fn run(mut self, mut following: Following) {
        loop {
            match self.follow(&mut following).await {
                Ended::Stopped => break,
                Ended::Interrupted(why) => tracing::debug!(stream = self.stream, why, "following is interrupted"),
            }
            self.discard(&following.consumer).await;
            let Some(again) = self.begin_again().await else { return };
            following = again;
        }
        self.discard(&following.consumer).await;
    }

    async fn begin_again(&mut self) -> Option<Following> {
        let mut failures = 0;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(PAUSE * (1 << failures.min(6))) => {}
            }
            match tokio::time::timeout(3 * ANSWER_LIMIT, self.begin()).await {
                Ok(Ok(following)) => return Some(following),
                Ok(Err(error)) => {
                    tracing::warn!(stream = self.stream, %error, "the stream cannot be followed, will try again")
                }
                Err(_) => tracing::warn!(stream = self.stream, "the stream cannot be followed in time, will try again"),
            }
            failures += 1;
        }
    }

    async fn follow(&mut self, following: &mut Following) -> Ended {
        let client = self.connection.client();
        let stop = self.stop.clone();
        loop {
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Stopped,
                _ = following.up.changed() => return Ended::Interrupted("the connection was made again"),
                message = tokio::time::timeout(SILENCE_LIMIT, following.messages.next()) => message,
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return Ended::Interrupted("the subscription ended"),
                Err(_) => return Ended::Interrupted("no sign of life"),
            };
            let interrupted = match message.status {
                None => self.take(message, &mut following.next).await,
                Some(StatusCode::IDLE_HEARTBEAT) => {
                    let interrupted = answer(&client, &message, following.next).await;
                    // The broker is idle: there is nothing more to deliver. Flow control comes under the same status.
                    if interrupted.is_none() && message.reply.is_none() {
                        self.reader.caught_up().await;
                    }
                    interrupted
                }
                Some(_) => Some("the consumer ended"),
            };
            if let Some(why) = interrupted {
                return Ended::Interrupted(why);
            }
        }
    }

    /// Passes a message on; a gap in the numbers is an interruption.
    async fn take(&mut self, message: Message, next: &mut u64) -> Option<&'static str> {
        let Some(position) = message.reply.as_ref().and_then(|reply| Position::parse(reply)) else {
            return Some("a message has no position");
        };
        if position.consumer_sequence != *next {
            return Some("a message is missing");
        }
        *next += 1;
        if position.stream_sequence > self.seen {
            self.seen = position.stream_sequence;
            self.reader.read(message).await;
        }
        if position.pending == 0 {
            self.reader.caught_up().await;
        }
        None
    }

    async fn discard(&self, consumer: &str) {
        let delete = self.connection.context.delete_consumer_from_stream(consumer, self.stream);
        // Best effort: the broker removes it when nobody listened for a while.
        let _ = tokio::time::timeout(Duration::from_millis(200), delete).await;
    }
}

/// Answers flow control, and compares the last number the broker sent with what arrived.
async fn answer(client: &Client, message: &Message, next: u64) -> Option<&'static str> {
    let stalled = message.headers.as_ref().and_then(|headers| codec::get(headers, "Nats-Consumer-Stalled"));
    let flow_control = message.reply.as_ref().map(|reply| reply.to_string()).or(stalled.map(str::to_owned));
    if let Some(subject) = flow_control {
        let sent = tokio::time::timeout(ANSWER_LIMIT, client.publish(subject, Bytes::new())).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Some("flow control could not be answered");
        }
    }
    let last: Option<u64> =
        message.headers.as_ref().and_then(|headers| codec::get(headers, "Nats-Last-Consumer")?.parse().ok());
    match last {
        Some(last) if last + 1 != next => Some("the last message is missing"),
        _ => None,
    }
}
