//! Events delivered and not settled: kept alive at the broker, handed back when dropped.
//!
//! The pump of a source puts every delivery in here the moment it arrives, so that one that waits for its turn is kept
//! alive like one at work. A [`Hold`] that is dropped unsettled is handed back: the broker delivers the event again at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use pipeline::Settlement;
use tokio::sync::Notify;

use crate::bounded::bounded;
use crate::delivery::{ACK, NAK, PROGRESS, nak_after};

/// How long a word to the broker may wait for its turn while the connection is down. Lost, it means a repeat.
const WORD_LIMIT: Duration = Duration::from_secs(2);
/// How long a confirmation of a settlement is waited for.
const CONFIRM_LIMIT: Duration = Duration::from_secs(5);

/// The deliveries of one source.
pub struct Held {
    client: Client,
    table: Mutex<Table>,
    changed: Notify,
}

/// Reply subjects in numbered places; free places are used again, so that it grows to the most ever held.
#[derive(Default)]
struct Table {
    replies: Vec<Option<Subject>>,
    free: Vec<usize>,
    /// Of the messages held, as they came.
    bytes: usize,
    /// The pump waits until no more than this many are held.
    wake_at: Option<usize>,
}

impl Table {
    fn len(&self) -> usize {
        self.replies.len() - self.free.len()
    }

    fn insert(&mut self, reply: Subject) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.replies[place] = Some(reply);
                place
            }
            None => {
                self.replies.push(Some(reply));
                self.replies.len() - 1
            }
        }
    }

    fn remove(&mut self, place: usize) {
        self.replies[place] = None;
        self.free.push(place);
    }
}

impl Held {
    pub fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, table: Mutex::default(), changed: Notify::new() })
    }

    /// Takes a delivery in.
    pub fn add(self: &Arc<Self>, reply: Subject, bytes: usize) -> Hold {
        let mut table = self.lock();
        table.bytes += bytes;
        let place = table.insert(reply.clone());
        drop(table);
        Hold { place, bytes, reply, held: Arc::clone(self), settled: false }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Deliveries held.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits until at most `most` are held, for ever without a number. Gives at once if that is so; cancel-safe.
    pub async fn freed(&self, most: Option<usize>) {
        let Some(most) = most else { return std::future::pending().await };
        {
            let mut table = self.lock();
            if table.len() <= most {
                return;
            }
            table.wake_at = Some(most);
        }
        self.changed.notified().await;
    }

    /// Tells the broker that everything held is still at work.
    pub async fn report_progress(&self) {
        let replies: Vec<Subject> = self.lock().replies.iter().flatten().cloned().collect();
        for reply in replies {
            if !self.say(reply, PROGRESS).await {
                return;
            }
        }
    }

    /// Whether the word was queued in time; if not, the connection is down for long and so is everything after it.
    async fn say(&self, reply: Subject, word: Bytes) -> bool {
        matches!(bounded(WORD_LIMIT, self.client.publish(reply, word)).await, Ok(Ok(())))
    }

    fn remove(&self, place: usize, bytes: usize) {
        let mut table = self.lock();
        table.bytes -= bytes;
        table.remove(place);
        if table.wake_at.is_some_and(|most| table.len() <= most) {
            table.wake_at = None;
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One delivery.
pub struct Hold {
    place: usize,
    bytes: usize,
    reply: Subject,
    held: Arc<Held>,
    settled: bool,
}

impl Hold {
    /// Tells the broker what becomes of the event; whether it has confirmed, where that is waited for.
    pub async fn settle(mut self, settlement: Settlement) -> bool {
        let word = match settlement {
            Settlement::DoneForSure => {
                self.settled = true;
                let confirmed = bounded(CONFIRM_LIMIT, self.held.client.request(self.reply.clone(), ACK)).await;
                return matches!(confirmed, Ok(Ok(_)));
            }
            Settlement::Done => ACK,
            Settlement::Retry(delay, reason) => nak_after(delay, &reason),
        };
        self.settled = true;
        if !self.held.say(self.reply.clone(), word).await {
            tracing::debug!("a settlement did not reach the broker, the event comes again");
        }
        false
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.remove(self.place, self.bytes);
        if !self.settled {
            // Queued if there is room for a word at this moment; otherwise the broker's own clock does the same later.
            let _ = self.held.client.publish(self.reply.clone(), NAK).now_or_never();
        }
    }
}
