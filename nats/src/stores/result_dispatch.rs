//! Live results for every watcher of the process, from one consumer.
//!
//! One follower ([`crate::follow`]) reads all of `RES`; a sharded map finds the watchers of a request. The dispatcher never
//! waits for a watcher: one whose channel is full is closed and reads the history again.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::Message;
use async_trait::async_trait;
use pipeline::{Outcome, RequestId, Token, Watch};
use tokio::sync::mpsc;

use crate::follow::Reader;
use crate::results;

/// Results a watcher may be behind.
const WATCHER_CAPACITY: usize = 256;
const SHARDS: usize = 16;
type Watchers = HashMap<RequestId, Vec<Watcher>>;

struct Watcher {
    key: u64,
    channel: mpsc::Sender<Arc<Outcome>>,
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
        let outcome = Arc::new(outcome);
        list.retain(|watcher| {
            let kept = watcher.channel.try_send(Arc::clone(&outcome)).is_ok();
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

/// Hands what is followed to [`Dispatch`].
pub struct Reading(pub Arc<Dispatch>);

#[async_trait]
impl Reader for Reading {
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
    use crate::codec;
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
