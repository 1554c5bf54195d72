//! The ledger: ids of events that have ended, so that a copy is recognised after the broker has forgotten the first.
//!
//! The broker refuses a repeat for ten minutes, and forgets acknowledged ids when it restarts. The ledger remembers ids for
//! a day. Entries are stored by [`Transport::note_ended`](crate::Transport::note_ended), many in one message, before their
//! events are acknowledged; every process reads them into this set, which is bounded by count and by age.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::names::{EventId, FlowName};

/// How an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Done or failed. Only its result is left.
    Settled,
    /// Dead-lettered. The bodies it refers to are stored with the dead letter.
    DeadLettered,
}

/// One ended event: 127 bits of SHA-256 over flow and id, and in the lowest bit how it ended.
///
/// Two events share an entry with a probability below 10⁻²⁶ among a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u128);

/// An entry is a digest already: its upper half is its hash.
impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64((self.0 >> 64) as u64);
    }
}

/// A hasher that returns the one number it is given.
#[derive(Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }
}

/// Length of an entry on the wire; it is big-endian.
pub const ENTRY_BYTES: usize = 16;

impl Entry {
    /// The entry of an event.
    #[must_use]
    pub fn new(flow: &FlowName, event: &EventId, end: End) -> Self {
        let digest =
            Sha256::new().chain_update(flow.as_str()).chain_update([0]).chain_update(event.as_str()).finalize();
        let mut head = [0; ENTRY_BYTES];
        head.copy_from_slice(&digest[..ENTRY_BYTES]);
        let kept = u128::from(end == End::DeadLettered);
        Self(u128::from_be_bytes(head) & !1 | kept)
    }

    /// The entry on the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        self.0.to_be_bytes()
    }

    /// An entry from the wire.
    #[must_use]
    pub fn from_bytes(bytes: [u8; ENTRY_BYTES]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    fn kept(self) -> Self {
        Self(self.0 | 1)
    }
}

/// What a process reads from the stored ledger.
#[derive(Clone, Debug)]
pub enum LedgerUpdate {
    /// Entries that were stored at this time.
    Noted(OffsetDateTime, Vec<Entry>),
    /// Everything stored before the reading began has been sent.
    CaughtUp,
}

/// The ended events of a process, shared by its flows.
pub struct Ledger {
    limits: LedgerLimits,
    state: Mutex<State>,
}

/// Bounds of the set in memory; the stored ledger has the same.
#[derive(Clone, Copy, Debug)]
pub struct LedgerLimits {
    /// Entries; beyond, the oldest are forgotten early. About 50 bytes each.
    pub events: usize,
    /// How long an entry is remembered.
    pub age: Duration,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self { events: 500_000, age: Duration::from_secs(24 * 3600) }
    }
}

#[derive(Default)]
struct State {
    /// The same entries as in `oldest_first`, each once.
    known: HashSet<Entry, BuildHasherDefault<IdentityHasher>>,
    /// In the order in which they were noted here, each group with the second in which it was stored.
    oldest_first: VecDeque<(i64, Vec<Entry>)>,
    forgotten_early: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(LedgerLimits::default())
    }
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(limits: LedgerLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Adds entries that were stored at `at`, and forgets those that are too old or too many.
    pub fn note(&self, at: OffsetDateTime, entries: &[Entry]) {
        let mut state = self.lock();
        // The process that stored them receives them again from the broker.
        let new: Vec<Entry> = entries.iter().copied().filter(|entry| state.known.insert(*entry)).collect();
        if !new.is_empty() {
            state.oldest_first.push_back((at.unix_timestamp(), new));
        }
        let youth = at - self.limits.age;
        while let Some((noted, _)) = state.oldest_first.front() {
            let too_old = *noted < youth.unix_timestamp();
            if !too_old && state.known.len() <= self.limits.events {
                break;
            }
            let (_, gone) = state.oldest_first.pop_front().unwrap_or_default();
            gone.iter().for_each(|entry| {
                state.known.remove(entry);
            });
            state.forgotten_early += if too_old { 0 } else { gone.len() as u64 };
        }
    }

    /// Whether an event has ended already, and how.
    #[must_use]
    pub fn look_up(&self, flow: &FlowName, event: &EventId) -> Option<End> {
        let state = self.lock();
        if state.known.is_empty() {
            return None;
        }
        let settled = Entry::new(flow, event, End::Settled);
        if state.known.contains(&settled) {
            return Some(End::Settled);
        }
        state.known.contains(&settled.kept()).then_some(End::DeadLettered)
    }

    /// Entries held, and entries that were forgotten early because of the limit.
    #[must_use]
    pub fn stats(&self) -> (usize, u64) {
        let state = self.lock();
        (state.known.len(), state.forgotten_early)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> EventId {
        EventId::new(text).unwrap()
    }

    fn entry(id: &str, end: End) -> Entry {
        Entry::new(&token("f"), &token(id), end)
    }

    #[test]
    fn an_event_is_known_by_flow_and_id_with_its_end() {
        let ledger = Ledger::default();
        ledger.note(OffsetDateTime::UNIX_EPOCH, &[entry("a", End::Settled), entry("b", End::DeadLettered)]);
        assert_eq!(ledger.look_up(&token("f"), &token("a")), Some(End::Settled));
        assert_eq!(ledger.look_up(&token("f"), &token("b")), Some(End::DeadLettered));
        assert_eq!(ledger.look_up(&token("f"), &token("c")), None);
        assert_eq!(ledger.look_up(&token("g"), &token("a")), None);
    }

    #[test]
    fn an_entry_survives_the_wire() {
        let sent = entry("a", End::DeadLettered);
        assert_eq!(Entry::from_bytes(sent.to_bytes()), sent);
    }

    #[test]
    fn age_and_count_bound_it() {
        let ledger = Ledger::new(LedgerLimits { events: 3, age: Duration::from_secs(10) });
        let at = |second| OffsetDateTime::from_unix_timestamp(second).unwrap();
        ledger.note(at(0), &[entry("old", End::Settled)]);
        ledger.note(at(11), &[entry("a", End::Settled)]);
        assert_eq!(ledger.look_up(&token("f"), &token("old")), None);
        assert_eq!(ledger.stats(), (1, 0));
        for id in ["b", "c", "d"] {
            ledger.note(at(12), &[entry(id, End::Settled)]);
        }
        assert_eq!(ledger.look_up(&token("f"), &token("a")), None);
        assert_eq!(ledger.stats(), (3, 1));
    }

    #[test]
    fn an_entry_noted_twice_counts_once() {
        let ledger = Ledger::default();
        ledger.note(OffsetDateTime::UNIX_EPOCH, &[entry("a", End::Settled)]);
        ledger.note(OffsetDateTime::UNIX_EPOCH, &[entry("a", End::Settled)]);
        assert_eq!(ledger.stats().0, 1);
    }
}
