//! A store of entries that expire, shared by all gateways, in a bounded number of broker records.
//!
//! Records do not expire, and a store with one record per entry would only grow. So entries share records: an entry's
//! key selects one of `records` records, each holds at most `entries_per_record` entries, and every change of a record
//! drops its expired entries. A change is a compare-and-set, retried if another gateway was faster.

use std::time::Duration;

use bytes::Bytes;
use pipeline::{Token, Transport, TransportError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

/// Attempts of one change. Each retry means that another change of the same record succeeded.
const ATTEMPTS: usize = 200;

/// One entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// A digest, in hexadecimal digits.
    pub key: String,
    /// When it expires, in seconds since 1970.
    pub until: i64,
    /// What it holds.
    pub value: Value,
}

/// Why an entry was not changed.
#[derive(Debug)]
pub enum ExpiringStoreError {
    /// The record of this key is full of entries that have not expired.
    Full,
    /// The broker failed.
    Transport(TransportError),
}

/// A store of entries.
pub struct ExpiringStore {
    /// Name of the broker's store; it begins with `caudal-`, which routes may not use.
    pub store: &'static str,
    /// Records, at most.
    pub records: u32,
    /// Entries in one record, at most.
    pub entries_per_record: usize,
}

impl ExpiringStore {
    /// Hands the entries of `key`'s record that have not expired to `change`, and stores them again if it returns true.
    pub async fn change<T>(
        &self,
        transport: &dyn Transport,
        key: &str,
        change: impl Fn(&mut Vec<Entry>) -> (T, bool),
    ) -> Result<T, ExpiringStoreError> {
        let (store, record_key) = (token(self.store), self.record_key(key));
        for _ in 0..ATTEMPTS {
            let record = transport.get_record(&store, &record_key).await.map_err(ExpiringStoreError::Transport)?;
            let revision = record.as_ref().map_or(0, |record| record.revision);
            // An unreadable record was not written by a gateway.
            let entries = record.and_then(|record| serde_json::from_slice(&record.value).ok());
            let mut entries: Vec<Entry> = entries.unwrap_or_default();
            let now = OffsetDateTime::now_utc().unix_timestamp();
            entries.retain(|entry| entry.until > now);
            let (answer, changed) = change(&mut entries);
            if !changed {
                return Ok(answer);
            }
            if entries.len() > self.entries_per_record {
                return Err(ExpiringStoreError::Full);
            }
            let value = serde_json::to_vec(&entries)
                .map_err(|error| ExpiringStoreError::Transport(TransportError::unavailable(error)))?;
            let replaced = transport.replace_record(&store, &record_key, revision, Bytes::from(value)).await;
            if replaced.map_err(ExpiringStoreError::Transport)? {
                return Ok(answer);
            }
        }
        Err(ExpiringStoreError::Transport(TransportError::unavailable(
            "other gateways changed the record at every attempt",
        )))
    }

    fn record_key(&self, key: &str) -> Token {
        let number = key.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
        token(&format!("slot-{}", number % self.records.max(1)))
    }
}

/// The time `age` from now, in seconds since 1970.
pub fn until(age: Duration) -> i64 {
    OffsetDateTime::now_utc().unix_timestamp().saturating_add(i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
}

fn token(text: &str) -> Token {
    Token::new(text).expect("made of letters, digits and dashes")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pipeline::testing::MemoryTransport;

    use super::*;

    const STORE: ExpiringStore = ExpiringStore { store: "caudal-test", records: 1, entries_per_record: 3 };

    fn add(key: &str, until: i64) -> impl Fn(&mut Vec<Entry>) -> (usize, bool) {
        let key = key.to_owned();
        move |entries: &mut Vec<Entry>| {
            entries.push(Entry { key: key.clone(), until, value: Value::Null });
            (entries.len(), true)
        }
    }

    #[tokio::test]
    async fn expired_entries_make_room() {
        let transport = MemoryTransport::default();
        for _ in 0..5 {
            assert_eq!(STORE.change(&transport, "00000001", add("a", 1)).await.unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn a_record_is_bounded() {
        let transport = MemoryTransport::default();
        let later = until(Duration::from_secs(60));
        for expected in 1..=3 {
            assert_eq!(STORE.change(&transport, "00000002", add("b", later)).await.unwrap(), expected);
        }
        let fourth = STORE.change(&transport, "00000003", add("c", later)).await;
        assert!(matches!(fourth, Err(ExpiringStoreError::Full)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_changes_are_not_lost() {
        let wide = Arc::new(ExpiringStore { entries_per_record: 100, ..STORE });
        let transport = MemoryTransport::default();
        let changes = (0..50).map(|number| {
            let (wide, transport) = (Arc::clone(&wide), transport.clone());
            tokio::spawn(async move { wide.change(&transport, "0", add(&number.to_string(), i64::MAX)).await.is_ok() })
        });
        for change in futures_util::future::join_all(changes).await {
            assert!(change.unwrap());
        }
        let count = wide.change(&transport, "0", |entries| (entries.len(), false)).await.unwrap();
        assert_eq!(count, 50);
    }
}
