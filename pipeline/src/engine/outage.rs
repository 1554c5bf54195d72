//! Outages: a stage whose dependency is out of reach waits with the events in its hands.
//!
//! ```text
//! Up ──a worker fails──▶ Down ──a probe succeeds──▶ Recovering ──the last waiting worker goes on──▶ Up
//!                         ▲ │                          │
//!                         │ └─the last worker gives up─│──────────────────────────────────────────▶ Up
//!                         └───────a probe fails────────┘
//! ```
//!
//! While the dependency is down, one worker probes: it repeats its batch after pauses that double up to two seconds. The
//! others wait in line behind it. Once the dependency is back they go on one after another, not all at once.

use std::sync::{Arc, Mutex as StdMutex, MutexGuard as StdMutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::fault::BoxError;
use crate::names::FlowName;
use crate::pauses::Pauses;

/// The dependency of a stage, as its workers see it. `waiting` counts the workers in line, the one that probes included;
/// it is never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No worker waits.
    #[default]
    Up,
    /// Out of reach since then: one worker probes.
    Down { since: Instant, waiting: usize },
    /// In reach again: the workers that still wait go on one after another.
    Recovering { waiting: usize },
}

/// A transition worth a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The outage began.
    Began,
    /// A probe succeeded.
    Recovered { lasted: Duration },
    /// The last waiting worker gave up before any probe succeeded.
    Abandoned { lasted: Duration },
}

impl State {
    /// A worker failed and gets in line.
    ///
    /// While the dependency recovers this begins no new outage: the attempt may have begun before the recovery.
    fn join(&mut self, now: Instant) -> Option<Change> {
        match self {
            Self::Up => {
                *self = Self::Down { since: now, waiting: 1 };
                return Some(Change::Began);
            }
            Self::Down { waiting, .. } | Self::Recovering { waiting } => *waiting += 1,
        }
        None
    }

    /// The worker whose turn it is tried again and failed.
    fn probe_failed(&mut self, now: Instant) -> Option<Change> {
        let Self::Recovering { waiting } = *self else { return None };
        *self = Self::Down { since: now, waiting };
        Some(Change::Began)
    }

    /// A worker leaves the line: its attempt succeeded, or it gave up.
    fn leave(&mut self, succeeded: bool, now: Instant) -> Option<Change> {
        let (waiting, down_since) = match *self {
            Self::Up => return None,
            Self::Down { since, waiting } => (waiting - 1, Some(since)),
            Self::Recovering { waiting } => (waiting - 1, None),
        };
        *self = match down_since {
            _ if waiting == 0 => Self::Up,
            Some(since) if !succeeded => Self::Down { since, waiting },
            _ => Self::Recovering { waiting },
        };
        let lasted = now - down_since?;
        match succeeded {
            true => Some(Change::Recovered { lasted }),
            false => (waiting == 0).then_some(Change::Abandoned { lasted }),
        }
    }
}

/// The outages of one stage, shared by its workers.
pub struct Outage {
    flow: FlowName,
    stage: Arc<str>,
    /// Held by the worker that probes; the others wait for it, first come, first served.
    turn: Mutex<()>,
    state: StdMutex<State>,
}

impl Outage {
    /// For a stage whose dependency is in reach.
    pub fn new(flow: FlowName, stage: Arc<str>) -> Self {
        Self { flow, stage, turn: Mutex::default(), state: StdMutex::default() }
    }

    /// Begins a worker's batch, for which it would wait until `patience` is over; without, for as long as it takes. Takes no
    /// lock until the worker fails.
    pub fn begin(&self, patience: Option<Duration>) -> Wait<'_> {
        Wait {
            outage: self,
            until: patience.map(|patience| Instant::now() + patience),
            pauses: Pauses::default(),
            in_line: false,
            turn: None,
            succeeded: false,
        }
    }

    /// Whether any worker waits.
    pub fn is_waiting(&self) -> bool {
        *self.state() != State::Up
    }

    fn state(&self) -> StdMutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, change: Option<Change>, error: Option<&BoxError>) {
        let (flow, stage) = (&self.flow, &*self.stage);
        match change {
            None => {}
            Some(Change::Began) => {
                let error = error.map(tracing::field::display);
                tracing::warn!(%flow, stage, error, "out of reach, the stage waits");
            }
            Some(Change::Recovered { lasted }) => tracing::info!(%flow, stage, ?lasted, "in reach again"),
            Some(Change::Abandoned { lasted }) => {
                tracing::warn!(%flow, stage, ?lasted, "still out of reach, the stage no longer waits");
            }
        }
    }
}

/// One worker's wait, from its first attempt at a batch to the last. Dropped, it leaves the line.
pub struct Wait<'o> {
    outage: &'o Outage,
    /// When the patience is over; `None` for never.
    until: Option<Instant>,
    pauses: Pauses,
    /// Whether the worker is counted in the state.
    in_line: bool,
    /// Held from the first pause on: this worker is the one that probes.
    turn: Option<MutexGuard<'o, ()>>,
    /// Whether the last attempt reached the dependency.
    succeeded: bool,
}

impl Wait<'_> {
    /// Waits for the worker's turn and then for its next attempt; `false` when the patience is over.
    pub async fn pause(&mut self, error: &BoxError) -> bool {
        let change = match (self.in_line, &self.turn) {
            (false, _) => self.outage.state().join(Instant::now()),
            (true, Some(_)) => self.outage.state().probe_failed(Instant::now()),
            (true, None) => None,
        };
        self.in_line = true;
        self.outage.log(change, Some(error));
        if self.turn.is_none() {
            // The worker before may have succeeded; this one still pauses, so that they go on one after another.
            self.turn = tokio::select! {
                turn = self.outage.turn.lock() => Some(turn),
                () = reached(self.until) => return false,
            };
        }
        if self.until.is_some_and(|until| Instant::now() + self.pauses.bound() >= until) {
            return false;
        }
        self.pauses.pause().await;
        true
    }

    /// The attempt reached the dependency.
    pub fn succeed(&mut self) {
        self.succeeded = true;
    }
}

/// Resolves at `until`; without, never.
async fn reached(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

impl Drop for Wait<'_> {
    /// Changes the state before the turn is free, so that the next worker in line finds it changed.
    fn drop(&mut self) {
        if self.in_line {
            let change = self.outage.state().leave(self.succeeded, Instant::now());
            self.outage.log(change, None);
        }
    }
}

#[cfg(test)]
mod tests;
