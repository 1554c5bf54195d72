//! A stage whose dependency is out of reach: it waits with what it has in hand, and comes back one worker at a time.
//!
//! The first worker that finds it out of reach is the one that tries again, after pauses that double up to two seconds; the
//! others wait behind it. When it is back they go on one after another, not all at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::fault::BoxError;
use crate::names::FlowName;

/// The first pause; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// One per stage, shared by its workers.
#[derive(Default)]
pub struct Outage {
    /// Held by the worker that tries again.
    turn: Mutex<()>,
    lasts: AtomicBool,
}

/// One worker's wait, from its first attempt at a batch to the last.
pub struct Wait<'o> {
    outage: &'o Outage,
    until: Instant,
    pause: Duration,
    turn: Option<MutexGuard<'o, ()>>,
}

impl Outage {
    /// A worker begins a batch, for which it would wait until `patience` is over.
    pub fn begin(&self, patience: Duration) -> Wait<'_> {
        Wait { outage: self, until: Instant::now() + patience, pause: FIRST_PAUSE, turn: None }
    }

    /// Whether some worker waits.
    pub fn lasts(&self) -> bool {
        self.lasts.load(Ordering::Relaxed)
    }
}

impl Wait<'_> {
    /// Waits before the next attempt; `false` when it was too long already.
    pub async fn pause(&mut self, flow: &FlowName, stage: &str, error: &BoxError) -> bool {
        if self.turn.is_none() {
            match tokio::time::timeout_at(self.until, self.outage.turn.lock()).await {
                // Whoever had the turn may have come through.
                Ok(turn) => self.turn = Some(turn),
                Err(_) => return false,
            }
            if !self.outage.lasts.swap(true, Ordering::Relaxed) {
                tracing::warn!(%flow, stage, error = %error, "out of reach, the stage waits");
            }
        }
        if Instant::now() + self.pause >= self.until {
            return false;
        }
        tokio::time::sleep(self.pause.mul_f64(1.0 - rand::random::<f64>() / 4.0)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.turn.is_some() {
            self.outage.lasts.store(false, Ordering::Relaxed);
        }
    }
}
