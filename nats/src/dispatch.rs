//! Live results for every watcher of the process, from one consumer.
//!
//! One ordered push consumer reads all of `RES`; a sharded map finds the watchers of a request. The dispatcher never waits
//! for a watcher: one whose channel is full is closed and reads the history again. After an interruption the consumer is
//! made anew behind the last result seen, so nothing is missed and nothing comes twice.
//!
//! The consumer is kept here and not by the client library's own ordered consumer, which starts over from the first
//! message of the stream when it is interrupted before the first delivery, and retries for ever when the stream is gone.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use pipeline::{BoxError, Outcome, RequestId, Token, Watch};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::codec;
use crate::connection::{ANSWER_LIMIT, Connection};
use crate::delivery::Position;
use crate::names;
use crate::results;

/// Results a watcher may be behind.
const WATCHER_CAPACITY: usize = 256;
const SHARDS: usize = 16;
/// How often the broker shows that the consumer is alive while there are no results.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Several heartbeats missing mean that it is gone.
const SILENCE_LIMIT: Duration = Duration::from_millis(3_500);
/// When the broker removes a consumer nobody listens to.
const UNHEARD_LIMIT: Duration = Duration::from_secs(30);
/// Pause before an interrupted consumer is made again, doubled up to 64 times while that fails.
const PAUSE: Duration = Duration::from_millis(20);

type Watchers = HashMap<RequestId, Vec<Watcher>>;

struct Watcher {
    key: u64,
    channel: mpsc::Sender<Outcome>,
}

/// Who watches which request.
pub struct Dispatch {
    shards: [Mutex<Watchers>; SHARDS],
    hasher: RandomState,
    next_key: AtomicU64,
}

impl Dispatch {
    pub fn new() -> Self {
        Self { shards: Default::default(), hasher: RandomState::new(), next_key: AtomicU64::new(0) }
    }

    /// Registers a watcher.
    pub fn watch(self: &Arc<Self>, request: &RequestId) -> Watch {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let (channel, outcomes) = mpsc::channel(WATCHER_CAPACITY);
        self.shard(request.as_str()).entry(request.clone()).or_default().push(Watcher { key, channel });
        let guard = Box::new(Registered { dispatch: Arc::clone(self), request: request.clone(), key });
        Watch { outcomes, guard }
    }

    fn shard(&self, request: &str) -> MutexGuard<'_, Watchers> {
        let index = self.hasher.hash_one(request) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a result to whoever watches its request. What nobody watches is not even decoded.
    fn deliver(&self, message: Message) {
        let Some(request) = results::request_of(&message.subject) else { return };
        let mut watchers = self.shard(request);
        let Some(list) = watchers.get_mut(request) else { return };
        let Some(outcome) = message.headers.as_ref().and_then(|headers| results::decode(headers, message.payload))
        else {
            tracing::warn!(subject = %message.subject, "a result that cannot be read was passed over");
            return;
        };
        list.retain(|watcher| {
            let kept = watcher.channel.try_send(outcome.clone()).is_ok();
            if !kept {
                metrics::counter!("caudal_result_watchers_closed_total").increment(1);
            }
            kept
        });
        if list.is_empty() {
            watchers.remove(request);
        }
    }

    fn remove(&self, request: &Token, key: u64) {
        let mut watchers = self.shard(request.as_str());
        let Some(list) = watchers.get_mut(request.as_str()) else { return };
        list.retain(|watcher| watcher.key != key);
        if list.is_empty() {
            watchers.remove(request.as_str());
        }
    }

    /// Closes every watcher, so that each reads the history again.
    fn close_all(&self) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

struct Registered {
    dispatch: Arc<Dispatch>,
    request: RequestId,
    key: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.dispatch.remove(&self.request, self.key);
    }
}

/// Follows the stream of results and feeds [`Dispatch`].
pub struct Follower {
    dispatch: Arc<Dispatch>,
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

impl Follower {
    pub fn new(dispatch: Arc<Dispatch>, connection: Connection, stop: CancellationToken) -> Self {
        Self { dispatch, connection, stop, seen: 0, made: None }
    }

    /// Makes the consumer: from here on nothing stored is missed.
    pub async fn begin(&mut self) -> Result<Following, BoxError> {
        let context = &self.connection.context;
        let mut up = self.connection.up.clone();
        up.mark_unchanged();
        let stream = context.get_stream(names::RESULTS).await?;
        let info = stream.cached_info();
        let (made, last) = (info.created, info.state.last_sequence);
        match self.made {
            None => self.seen = last,
            Some(before) if before != made || last < self.seen => {
                tracing::error!(seen = self.seen, last, "the stream of results lost its end or was made anew");
                self.seen = last;
                self.dispatch.close_all();
            }
            Some(_) => {}
        }
        self.made = Some(made);
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
        context.create_consumer_on_stream(config, names::RESULTS).await?;
        Ok(Following { messages, consumer, up, next: 1 })
    }

    /// Runs until stopped.
    pub async fn run(mut self, mut following: Following) {
        loop {
            match self.follow(&mut following).await {
                Ended::Stopped => break,
                Ended::Interrupted(why) => tracing::debug!(why, "following results is interrupted"),
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
                Ok(Err(error)) => tracing::warn!(%error, "results cannot be followed, will try again"),
                Err(_) => tracing::warn!("results cannot be followed in time, will try again"),
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
                None => self.take(message, &mut following.next),
                Some(StatusCode::IDLE_HEARTBEAT) => answer(&client, &message, following.next).await,
                Some(_) => Some("the consumer ended"),
            };
            if let Some(why) = interrupted {
                return Ended::Interrupted(why);
            }
        }
    }

    /// Passes a result on; a gap in the numbers is an interruption.
    fn take(&mut self, message: Message, next: &mut u64) -> Option<&'static str> {
        let Some(position) = message.reply.as_ref().and_then(|reply| Position::parse(reply)) else {
            return Some("a message has no position");
        };
        if position.consumer_sequence != *next {
            return Some("a message is missing");
        }
        *next += 1;
        if position.stream_sequence > self.seen {
            self.seen = position.stream_sequence;
            self.dispatch.deliver(message);
        }
        None
    }

    async fn discard(&self, consumer: &str) {
        let delete = self.connection.context.delete_consumer_from_stream(consumer, names::RESULTS);
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

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::OutcomeKind;

    fn message(request: &str, ordinal: u32) -> Message {
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in [
            ("Caudal-Kind", OutcomeKind::Data.as_str()),
            ("Caudal-Ordinal", &ordinal.to_string()),
            ("Caudal-Flow", "f"),
            ("ce-time", "2026-01-31T12:00:00Z"),
        ] {
            codec::put(&mut headers, name, value).unwrap();
        }
        Message {
            subject: format!("res.{request}.{ordinal}").into(),
            reply: None,
            payload: Bytes::new(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn every_watcher_of_a_request_gets_its_results_and_no_other() {
        let dispatch = Arc::new(Dispatch::new());
        let (a, b) = (Token::new("a").unwrap(), Token::new("b").unwrap());
        let (mut first, mut second, mut other) = (dispatch.watch(&a), dispatch.watch(&a), dispatch.watch(&b));
        dispatch.deliver(message("a", 3));
        assert_eq!(first.outcomes.try_recv().unwrap().ordinal, 3);
        assert_eq!(second.outcomes.try_recv().unwrap().ordinal, 3);
        assert!(other.outcomes.try_recv().is_err());
        drop(first);
        dispatch.deliver(message("a", 4));
        assert_eq!(second.outcomes.try_recv().unwrap().ordinal, 4);
        drop((second, other));
        assert!(dispatch.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn a_watcher_that_falls_behind_is_closed_and_the_others_are_not() {
        let dispatch = Arc::new(Dispatch::new());
        let request = Token::new("a").unwrap();
        let mut slow = dispatch.watch(&request);
        for ordinal in 0..=WATCHER_CAPACITY as u32 {
            dispatch.deliver(message("a", ordinal));
        }
        let mut late = dispatch.watch(&request);
        dispatch.deliver(message("a", 999));
        assert_eq!(late.outcomes.try_recv().unwrap().ordinal, 999);
        for _ in 0..WATCHER_CAPACITY {
            slow.outcomes.try_recv().unwrap();
        }
        assert_eq!(slow.outcomes.try_recv().unwrap_err(), mpsc::error::TryRecvError::Disconnected);
        drop(slow);
        dispatch.deliver(message("a", 1000));
        assert_eq!(late.outcomes.try_recv().unwrap().ordinal, 1000);
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let dispatch = Arc::new(Dispatch::new());
        let mut watch = dispatch.watch(&Token::new("a").unwrap());
        let mut forged = message("a", 1);
        forged.headers = None;
        dispatch.deliver(forged);
        assert!(watch.outcomes.try_recv().is_err());
    }
}
