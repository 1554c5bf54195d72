//! Which streams store what is sent to them.
//!
//! A stream whose disk was full refuses every write until the broker is restarted, while other streams go on. So this is
//! kept for each stream: from the answers to this process's own writes, and from the reports of other processes. A stream
//! that is full by its own bound is healthy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::link::connection::LONGEST_RECONNECT_PAUSE;

/// While a stream refuses, one write is sent to it in this time, to see whether it stores again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// A refusal that another process reported is forgotten unless it is reported again; it is, every second.
const REPORTED_FOR: Duration = Duration::from_secs(5);

/// After a new connection, reports are ignored for this time: their senders may have sent them before they reconnected.
const REPORTS_IGNORED_FOR: Duration = LONGEST_RECONNECT_PAUSE.saturating_add(Duration::from_secs(2));
/// Without a restart nothing shows that a stream stores again but a write, and a service that is not ready may get none.
/// After this time without a refused one it is no longer said to refuse.
const UNPROVEN_AFTER: Duration = Duration::from_secs(30);

/// Why a stream is thought to refuse writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not answer writes, which only a restart of the broker cures.
    Silent,
    /// It answers with an error of its storage, and stores again when there is room.
    Answered,
    /// Another process reports that it does not answer writes.
    Reported,
}

#[derive(Debug)]
struct Refusing {
    refusal: Refusal,
    /// The last refused write or report.
    seen: Instant,
    /// When the next write may be sent.
    next_try: Instant,
}

#[derive(Default)]
struct State {
    refusing: BTreeMap<String, Refusing>,
    /// Streams that are being asked whether they refuse.
    checking: BTreeSet<String>,
    /// When the connection was established again.
    reset_at: Option<Instant>,
}

/// The state of every declared stream.
pub struct StreamHealth {
    streams: BTreeSet<String>,
    state: Mutex<State>,
    /// Whether `refusing` has entries. Publishing looks only at this while all is well.
    any: AtomicBool,
    /// Notified when a stream begins to refuse.
    began: Notify,
}

impl StreamHealth {
    /// All of these streams store.
    pub fn new(streams: impl IntoIterator<Item = String>) -> Self {
        let streams = streams.into_iter().collect();
        Self { streams, state: Mutex::default(), any: AtomicBool::new(false), began: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every declared stream, and whether it stores what is sent to it.
    pub fn streams(&self) -> Vec<(String, bool)> {
        let state = self.lock();
        self.streams.iter().map(|stream| (stream.clone(), !state.refusing.contains_key(stream))).collect()
    }

    /// The streams that refuse writes.
    pub fn refusing(&self) -> Vec<(String, Refusal)> {
        self.lock().refusing.iter().map(|(stream, refusing)| (stream.clone(), refusing.refusal)).collect()
    }

    /// Whether the stream refuses writes.
    pub fn is_refusing(&self, stream: &str) -> bool {
        self.any.load(Ordering::Relaxed) && self.lock().refusing.contains_key(stream)
    }

    /// Whether a write may be sent: to a stream that refuses only one in [`RETRY_INTERVAL`].
    pub fn admits(&self, stream: &str) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return true;
        }
        let mut state = self.lock();
        let Some(refusing) = state.refusing.get_mut(stream) else { return true };
        let now = Instant::now();
        let admitted = now >= refusing.next_try;
        if admitted {
            refusing.next_try = now + RETRY_INTERVAL;
        }
        admitted
    }

    /// The stream has stored a message.
    pub fn stored(&self, stream: &str) {
        let mut state = self.lock();
        if state.refusing.remove(stream).is_some() {
            tracing::info!(stream, "the stream stores messages again");
        }
        self.any.store(!state.refusing.is_empty(), Ordering::Relaxed);
    }

    /// Whether any stream refuses, without a look at which.
    pub fn any_refusing(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// A write to the stream was refused, or another process reports that. Only declared streams are kept.
    pub fn refused(&self, stream: &str, refusal: Refusal) {
        if !self.streams.contains(stream) {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock();
        if refusal == Refusal::Reported && state.reset_at.is_some_and(|at| now < at + REPORTS_IGNORED_FOR) {
            return;
        }
        match state.refusing.get_mut(stream) {
            Some(known) if refusal == Refusal::Reported && known.refusal != Refusal::Reported => {}
            Some(known) => (known.refusal, known.seen) = (refusal, now),
            None => {
                let refusing = Refusing { refusal, seen: now, next_try: now + RETRY_INTERVAL };
                state.refusing.insert(stream.to_owned(), refusing);
                self.any.store(true, Ordering::Relaxed);
                self.began.notify_one();
            }
        }
    }

    /// Begins to ask the stream whether it refuses; `None` while somebody else does.
    pub fn begin_check<'h>(&'h self, stream: &'h str) -> Option<Check<'h>> {
        let is_first = self.lock().checking.insert(stream.to_owned());
        is_first.then(|| Check { health: self, stream })
    }

    /// The connection was established again, maybe to another server: all streams get another chance.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.refusing.clear();
        state.reset_at = Some(Instant::now());
        self.any.store(false, Ordering::Relaxed);
    }

    /// Forgets refusals without news. `restarts`: whether a silent stream is cured by a restart of ours, which resets it.
    pub fn forget_old(&self, restarts: bool) {
        let mut state = self.lock();
        state.refusing.retain(|_, refusing| match refusing.refusal {
            Refusal::Reported => refusing.seen.elapsed() < REPORTED_FOR,
            Refusal::Silent if restarts => true,
            Refusal::Silent | Refusal::Answered => refusing.seen.elapsed() < UNPROVEN_AFTER,
        });
        self.any.store(!state.refusing.is_empty(), Ordering::Relaxed);
    }

    /// Waits until another stream refuses.
    pub async fn began(&self) {
        self.began.notified().await;
    }
}

/// A stream that is being asked whether it refuses.
pub struct Check<'h> {
    health: &'h StreamHealth,
    stream: &'h str,
}

impl Drop for Check<'_> {
    fn drop(&mut self) {
        self.health.lock().checking.remove(self.stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> StreamHealth {
        StreamHealth::new(["EV-f".to_owned(), "RES".to_owned()])
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_refuses_admits_one_write_per_interval() {
        let health = health();
        assert!(health.admits("EV-f"));
        health.refused("EV-f", Refusal::Silent);
        assert!(!health.admits("EV-f"));
        assert!(health.admits("RES"), "another stream");
        tokio::time::advance(RETRY_INTERVAL).await;
        assert!(health.admits("EV-f"));
        assert!(!health.admits("EV-f"), "one");
        health.stored("EV-f");
        assert!(health.admits("EV-f") && health.admits("EV-f"));
        assert!(!health.any_refusing());
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_is_forgotten_and_what_was_seen_here_is_kept() {
        let health = health();
        health.refused("EV-f", Refusal::Silent);
        health.refused("EV-f", Refusal::Reported);
        health.refused("RES", Refusal::Reported);
        tokio::time::advance(REPORTED_FOR).await;
        health.forget_old(true);
        assert_eq!(health.refusing(), [("EV-f".to_owned(), Refusal::Silent)]);
        tokio::time::advance(UNPROVEN_AFTER).await;
        health.forget_old(true);
        assert!(health.any_refusing());
        health.forget_old(false);
        assert!(health.refusing().is_empty() && !health.any_refusing());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answered_refusal_is_forgotten_without_a_write_and_without_a_restart() {
        let health = health();
        health.refused("RES", Refusal::Answered);
        tokio::time::advance(UNPROVEN_AFTER).await;
        health.forget_old(true);
        assert!(!health.any_refusing());
    }

    #[tokio::test]
    async fn streams_that_are_not_declared_are_not_kept() {
        let health = health();
        health.refused("EV-g", Refusal::Reported);
        assert!(health.refusing().is_empty());
        assert_eq!(health.streams(), [("EV-f".to_owned(), true), ("RES".to_owned(), true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_gives_every_stream_another_chance() {
        let health = health();
        health.refused("EV-f", Refusal::Silent);
        health.reset();
        assert!(health.admits("EV-f") && !health.is_refusing("EV-f"));
        health.refused("RES", Refusal::Reported);
        assert!(!health.is_refusing("RES"), "a report from before the restart");
        tokio::time::advance(REPORTS_IGNORED_FOR).await;
        health.refused("RES", Refusal::Reported);
        assert!(health.is_refusing("RES"));
    }

    #[tokio::test]
    async fn a_stream_is_asked_by_one_at_a_time() {
        let health = health();
        let check = health.begin_check("EV-f");
        assert!(check.is_some() && health.begin_check("EV-f").is_none());
        drop(check);
        assert!(health.begin_check("EV-f").is_some());
    }
}
