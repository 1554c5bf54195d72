//! The writer thread of the embedded index: group commit, optimisation and rebuilds.
//!
//! Waiting requests, up to 256 points, become one update and one flush per collection; then all of them are answered. A
//! flush costs the same for one point as for 256, so the busier it is, the cheaper a point gets. Between commits, when
//! nothing waits, it optimises collections.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use pipeline::{BoxError, IndexError, Point, Space};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::checks::{check_space, unavailable};
use super::collection::Collection;
use super::limits::Limits;

/// Points of one commit; a single larger request is not split.
const COMMIT_POINTS: usize = 256;

/// Points changed in a collection before it is optimised while no request waits.
const OPTIMIZE_WHEN_IDLE_AFTER: usize = 1_000;
/// Points changed in a collection before it is optimised even if requests wait.
const OPTIMIZE_AFTER: usize = 20_000;

/// The open collections by name: written by the writer thread, read by searches.
pub(super) type Collections = Arc<RwLock<HashMap<String, Arc<Collection>>>>;

/// A command to the writer thread.
pub(super) enum WriterCommand {
    /// Store points.
    Upsert(UpsertRequest),
    /// Close all collections and end.
    Close,
}

/// Points of one caller.
pub(super) struct UpsertRequest {
    /// Already checked.
    pub(super) collection: String,
    pub(super) space: Space,
    /// Checked: each vector has the space's length.
    pub(super) points: Vec<Point>,
    pub(super) reply: oneshot::Sender<Result<(), IndexError>>,
}

/// The thread's state.
pub(super) struct WriterThread {
    pub(super) directory: PathBuf,
    pub(super) limits: Limits,
    pub(super) collections: Collections,
    /// Points changed per collection since it was last optimised.
    pub(super) changes: HashMap<String, usize>,
}

impl WriterThread {
    /// Runs until `Close`, or until every sender is dropped.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<WriterCommand>) {
        let mut closing = false;
        while !closing {
            let Some(command) = commands.blocking_recv() else { break };
            let mut group = Vec::new();
            closing = !collect(command, &mut group);
            while !closing
                && group.iter().map(|upsert: &UpsertRequest| upsert.points.len()).sum::<usize>() < COMMIT_POINTS
            {
                let Ok(command) = commands.try_recv() else { break };
                closing = !collect(command, &mut group);
            }
            self.commit(group);
            if !closing {
                self.optimize_due(commands.is_empty());
            }
        }
        // Requests queued behind a close are not stored: dropping their reply fails them.
        commands.close();
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        collections.drain().for_each(|(_, collection)| collection.close());
    }

    fn commit(&mut self, group: Vec<UpsertRequest>) {
        if group.is_empty() {
            return;
        }
        if let Err(full) = self.limits.check_free_space(&self.directory, growth_of(&group)) {
            return group.into_iter().for_each(|upsert| answer(upsert.reply, Err(unavailable(full.to_string()))));
        }
        let mut by_collection: HashMap<String, Vec<UpsertRequest>> = HashMap::new();
        for upsert in group {
            by_collection.entry(upsert.collection.clone()).or_default().push(upsert);
        }
        for (name, group) in by_collection {
            self.commit_one(&name, group);
        }
    }

    fn commit_one(&mut self, name: &str, group: Vec<UpsertRequest>) {
        let Some(first) = group.first() else { return };
        let collection = match self.collection(name, &first.space) {
            Ok(collection) => collection,
            Err(error) => {
                tracing::error!(collection = name, error, "a collection cannot be created");
                let fail = |upsert: UpsertRequest| answer(upsert.reply, Err(unavailable(error.clone())));
                return group.into_iter().for_each(fail);
            }
        };
        let mut points = Vec::new();
        let mut waiting = Vec::new();
        for upsert in group {
            match check_space(name, collection.space(), &upsert.space) {
                Ok(()) => {
                    points.extend(upsert.points);
                    waiting.push(upsert.reply);
                }
                Err(other) => answer(upsert.reply, Err(other)),
            }
        }
        let count = points.len();
        let started = Instant::now();
        let stored = collection.store(points);
        metrics::histogram!("caudal_index_commit_seconds").record(started.elapsed().as_secs_f64());
        match stored {
            Ok(()) => {
                *self.changes.entry(name.to_string()).or_default() += count;
                metrics::counter!("caudal_index_points_total", "collection" => name.to_string())
                    .increment(count as u64);
                waiting.into_iter().for_each(|reply| answer(reply, Ok(())));
            }
            Err(error) => {
                let text = error.to_string();
                tracing::error!(collection = name, error = text, "points were not stored");
                waiting.into_iter().for_each(|reply| answer(reply, Err(unavailable(text.clone()))));
            }
        }
    }

    /// The collection of that name, created for `space` if there is none.
    fn collection(&self, name: &str, space: &Space) -> Result<Arc<Collection>, String> {
        let existing = self.collections.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(collection) = existing {
            return Ok(collection);
        }
        let created = Collection::create(self.directory.join(name), space).map_err(|error| error.to_string())?;
        let created = Arc::new(created);
        self.collections.write().unwrap_or_else(PoisonError::into_inner).insert(name.into(), Arc::clone(&created));
        Ok(created)
    }

    /// Optimises collections that changed a lot, and rebuilds those whose log is much larger than their points.
    fn optimize_due(&mut self, idle: bool) {
        let due = if idle { OPTIMIZE_WHEN_IDLE_AFTER } else { OPTIMIZE_AFTER };
        let names: Vec<String> =
            self.changes.iter().filter(|(_, changes)| **changes >= due).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.changes.remove(&name);
            let existing = self.collections.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
            let Some(collection) = existing else { continue };
            if let Err(error) = self.optimize(&name, &collection) {
                tracing::warn!(collection = name, error = error.to_string(), "a collection could not be optimised");
            }
        }
    }

    fn optimize(&self, name: &str, collection: &Collection) -> Result<(), BoxError> {
        let live_bytes = (collection.points() * (collection.space().dim * 4 + POINT_OVERHEAD)) as u64;
        // Both may write every point a second time, and a rebuild also writes it to the log.
        self.limits.check_free_space(&self.directory, COPY_FACTOR * live_bytes)?;
        collection.optimize()?;
        if collection.log_bytes() > self.limits.log_bytes.max(LOG_FACTOR * live_bytes) {
            collection.rebuild()?;
            metrics::counter!("caudal_index_rebuilds_total", "collection" => name.to_string()).increment(1);
        }
        metrics::gauge!("caudal_index_points", "collection" => name.to_string()).set(collection.points() as f64);
        metrics::gauge!("caudal_index_log_bytes", "collection" => name.to_string()).set(collection.log_bytes() as f64);
        Ok(())
    }
}

/// Rough size of a point's payload, id and bookkeeping, in bytes.
const POINT_OVERHEAD: usize = 256;
/// Disk space of a copy of a collection, log included, as a multiple of its points' size.
const COPY_FACTOR: u64 = 3;
/// Largest log as a multiple of the points' size. The log of a rebuilt shard is about 1.3 times.
const LOG_FACTOR: u64 = 4;

/// Bytes that a group may add to the disk: vector, payload and bookkeeping, and the same again in the log, where a
/// number takes five bytes.
fn growth_of(group: &[UpsertRequest]) -> u64 {
    let points = group.iter().flat_map(|upsert| &upsert.points);
    points.map(|point| (9 * point.values.len() + 2 * POINT_OVERHEAD) as u64).sum()
}

/// Adds an upsert to the group; false on `Close`.
fn collect(command: WriterCommand, group: &mut Vec<UpsertRequest>) -> bool {
    match command {
        WriterCommand::Upsert(upsert) => group.push(upsert),
        WriterCommand::Close => return false,
    }
    true
}

/// Sending fails if the caller has gone; its points are stored anyway.
fn answer(reply: oneshot::Sender<Result<(), IndexError>>, outcome: Result<(), IndexError>) {
    let _ = reply.send(outcome);
}
