//! Hands live results to the watchers of this process, from one consumer for all.
//!
//! One [`Follower`](crate::link::follower::Follower) reads all of `RES`; a sharded map finds the watchers of a request.
//! The dispatch never waits for a watcher: if a watcher's channel is full it is closed, and the watcher reads the
//! history again.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::Message;
use async_trait::async_trait;
use pipeline::{Outcome, RequestId, Token, Watch};
use tokio::sync::mpsc;

use crate::link::follower::StreamReader;
use crate::stores::results;
use crate::wire::subjects;

/// Results that may wait for one watcher.
const WATCHER_CAPACITY: usize = 256;
/// Parts of the map, each with a lock of its own.
const SHARDS: usize = 16;
type Watchers = HashMap<RequestId, Vec<Watcher>>;

struct Watcher {
    key: u64,
    channel: mpsc::Sender<Arc<Outcome>>,
}

/// The watchers of each request.
pub struct ResultDispatch {
    shards: [Mutex<Watchers>; SHARDS],
    hasher: RandomState,
    next_key: AtomicU64,
}

impl ResultDispatch {
    pub fn new() -> Self {
        Self { shards: Default::default(), hasher: RandomState::new(), next_key: AtomicU64::new(0) }
    }

    /// Registers a watcher.
    pub fn watch(self: &Arc<Self>, request: &RequestId) -> Watch {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let (channel, outcomes) = mpsc::channel(WATCHER_CAPACITY);
        self.shard(request.as_str()).entry(request.clone()).or_default().push(Watcher { key, channel });
        let guard = Box::new(Registration { dispatch: Arc::clone(self), request: request.clone(), key });
        Watch { outcomes, guard }
    }

    fn shard(&self, request: &str) -> MutexGuard<'_, Watchers> {
        let index = self.hasher.hash_one(request) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a result to the watchers of its request. A result without a watcher is not decoded.
    fn deliver(&self, message: Message) {
        let Some(request) = subjects::parse_result_request(&message.subject) else { return };
        let mut watchers = self.shard(request);
        let Some(list) = watchers.get_mut(request) else { return };
        let Some(outcome) = message.headers.as_ref().and_then(|headers| results::decode(headers, message.payload))
        else {
            tracing::warn!(subject = %message.subject, "a result that cannot be decoded was ignored");
            return;
        };
        let outcome = Arc::new(outcome);
        list.retain(|watcher| {
            let sent = watcher.channel.try_send(Arc::clone(&outcome)).is_ok();
            if !sent {
                metrics::counter!("caudal_result_watchers_closed_total").increment(1);
            }
            sent
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

    /// Closes every watcher's channel, so that each watcher reads the history again.
    fn close_all(&self) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

/// Removes the watcher when dropped.
struct Registration {
    dispatch: Arc<ResultDispatch>,
    request: RequestId,
    key: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.dispatch.remove(&self.request, self.key);
    }
}

/// Passes the messages of the results stream to the [`ResultDispatch`].
pub struct ResultReader(pub Arc<ResultDispatch>);

#[async_trait]
impl StreamReader for ResultReader {
    async fn read(&mut self, message: Message) {
        self.0.deliver(message);
    }

    async fn lost(&mut self) {
        self.0.close_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::headers;
    use bytes::Bytes;
    use pipeline::OutcomeKind;

    fn message(request: &str, ordinal: u32) -> Message {
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in [
            ("Caudal-Kind", OutcomeKind::Data.as_str()),
            ("Caudal-Ordinal", &ordinal.to_string()),
            ("Caudal-Flow", "f"),
            ("ce-time", "2026-01-31T12:00:00Z"),
        ] {
            headers::put(&mut headers, name, value).unwrap();
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
        let dispatch = Arc::new(ResultDispatch::new());
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
        let dispatch = Arc::new(ResultDispatch::new());
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
    fn a_result_that_cannot_be_decoded_is_ignored() {
        let dispatch = Arc::new(ResultDispatch::new());
        let mut watch = dispatch.watch(&Token::new("a").unwrap());
        let mut forged = message("a", 1);
        forged.headers = None;
        dispatch.deliver(forged);
        assert!(watch.outcomes.try_recv().is_err());
    }
}
