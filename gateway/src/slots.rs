//! Short-lived notes in a bounded number of records, the same for every gateway.
//!
//! A record is for ever, and a store of one record a note would only grow. So notes share records: a note's key says which
//! of `count` records it is in, each holds at most `most` notes, and whoever changes a record drops what has expired. A
//! change is compare-and-set, and tried again when somebody else was faster.

use std::time::Duration;

use bytes::Bytes;
use pipeline::{Token, Transport, TransportError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

/// How often a change that met another is tried again. Each time somebody else's change succeeded.
const ATTEMPTS: usize = 200;

/// One note.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Note {
    /// A digest, in hexadecimal digits.
    pub key: String,
    /// Until when it holds, in seconds since 1970.
    pub until: i64,
    /// What it says.
    pub value: Value,
}

/// Why a note was not changed.
#[derive(Debug)]
pub enum SlotError {
    /// The record of this key is full of notes that still hold.
    Full,
    /// The broker.
    Transport(TransportError),
}

/// A store of notes.
pub struct Slots {
    /// Name of the store; those that begin so are no route's.
    pub store: &'static str,
    /// Records, at most.
    pub count: u32,
    /// Notes in one of them, at most.
    pub most: usize,
}

impl Slots {
    /// Hands the notes that hold and share the record of `key` to `change`, and stores what it leaves where it says so.
    pub async fn change<T>(
        &self,
        transport: &dyn Transport,
        key: &str,
        change: impl Fn(&mut Vec<Note>) -> (T, bool),
    ) -> Result<T, SlotError> {
        let (store, slot) = (token(self.store), self.slot(key));
        for _ in 0..ATTEMPTS {
            let record = transport.get_record(&store, &slot).await.map_err(SlotError::Transport)?;
            let revision = record.as_ref().map_or(0, |record| record.revision);
            // What cannot be read was written by nobody we know.
            let notes = record.and_then(|record| serde_json::from_slice(&record.value).ok());
            let mut notes: Vec<Note> = notes.unwrap_or_default();
            let now = OffsetDateTime::now_utc().unix_timestamp();
            notes.retain(|note| note.until > now);
            let (answer, changed) = change(&mut notes);
            if !changed {
                return Ok(answer);
            }
            if notes.len() > self.most {
                return Err(SlotError::Full);
            }
            let value =
                serde_json::to_vec(&notes).map_err(|error| SlotError::Transport(TransportError::unavailable(error)))?;
            let replaced = transport.replace_record(&store, &slot, revision, Bytes::from(value)).await;
            if replaced.map_err(SlotError::Transport)? {
                return Ok(answer);
            }
        }
        Err(SlotError::Transport(TransportError::unavailable("a record was changed by others all the time")))
    }

    fn slot(&self, key: &str) -> Token {
        let number = key.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
        token(&format!("slot-{}", number % self.count.max(1)))
    }
}

/// What `hold` from now is in seconds since 1970.
pub fn until(hold: Duration) -> i64 {
    OffsetDateTime::now_utc().unix_timestamp().saturating_add(i64::try_from(hold.as_secs()).unwrap_or(i64::MAX))
}

fn token(text: &str) -> Token {
    Token::new(text).expect("made of letters, digits and dashes")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pipeline::testing::MemoryTransport;

    use super::*;

    const SLOTS: Slots = Slots { store: "caudal-test", count: 1, most: 3 };

    fn add(key: &str, until: i64) -> impl Fn(&mut Vec<Note>) -> (usize, bool) {
        let key = key.to_owned();
        move |notes: &mut Vec<Note>| {
            notes.push(Note { key: key.clone(), until, value: Value::Null });
            (notes.len(), true)
        }
    }

    #[tokio::test]
    async fn what_has_expired_makes_room_and_what_holds_is_bounded() {
        let transport = MemoryTransport::default();
        let later = until(Duration::from_secs(60));
        for _ in 0..5 {
            assert_eq!(SLOTS.change(&transport, "00000001", add("a", 1)).await.unwrap(), 1);
        }
        for expected in 1..=3 {
            assert_eq!(SLOTS.change(&transport, "00000002", add("b", later)).await.unwrap(), expected);
        }
        assert!(matches!(SLOTS.change(&transport, "00000003", add("c", later)).await, Err(SlotError::Full)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_change_is_lost_however_many_make_one() {
        let wide = Arc::new(Slots { most: 100, ..SLOTS });
        let transport = MemoryTransport::default();
        let changes = (0..50).map(|number| {
            let (wide, transport) = (Arc::clone(&wide), transport.clone());
            tokio::spawn(async move { wide.change(&transport, "0", add(&number.to_string(), i64::MAX)).await.is_ok() })
        });
        for change in futures_util::future::join_all(changes).await {
            assert!(change.unwrap());
        }
        let count = wide.change(&transport, "0", |notes| (notes.len(), false)).await.unwrap();
        assert_eq!(count, 50);
    }
}
