//! The thread that owns every collection's writes.
//!
//! Commits in groups: whatever waits, up to 256 points, becomes one update and one flush per collection, then everybody is
//! answered. A flush costs the same for one point as for 256, so the busier it is the cheaper a point gets. Between
//! commits, when nothing waits, it tidies up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use pipeline::{BoxError, IndexError, Point, Space};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::collection::Collection;
use super::embedded::Limits;
use super::{check_space, unavailable};

/// Points of one commit; a single larger request is not cut.
const COMMIT_POINTS: usize = 256;

/// Points changed in a collection before it is tidied up, when nothing waits; and in any case.
const TIDY_AFTER: usize = 1_000;
const TIDY_AT_LAST: usize = 20_000;

/// The collections that are open, by name: written by the owner, read by searches.
pub(super) type Shelf = Arc<RwLock<HashMap<String, Arc<Collection>>>>;

/// What the owner is asked to do.
pub(super) enum Command {
    /// Store points.
    Upsert(Upsert),
    /// Finish, close everything, end.
    Close,
}

/// Points of one caller.
pub(super) struct Upsert {
    /// A checked name.
    pub(super) collection: String,
    pub(super) space: Space,
    /// Of the space's length.
    pub(super) points: Vec<Point>,
    pub(super) reply: oneshot::Sender<Result<(), IndexError>>,
}

/// The thread's state.
pub(super) struct Owner {
    pub(super) directory: PathBuf,
    pub(super) limits: Limits,
    pub(super) shelf: Shelf,
    /// Points changed per collection since it was last tidied up.
    pub(super) changed: HashMap<String, usize>,
}

impl Owner {
    /// Serves until told to close or until nobody can ask any more.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut closing = false;
        while !closing {
            let Some(command) = commands.blocking_recv() else { break };
            let mut group = Vec::new();
            closing = !admit(command, &mut group);
            while !closing && group.iter().map(|upsert: &Upsert| upsert.points.len()).sum::<usize>() < COMMIT_POINTS {
                let Ok(command) = commands.try_recv() else { break };
                closing = !admit(command, &mut group);
            }
            self.commit(group);
            if !closing {
                self.tidy(commands.is_empty());
            }
        }
        // What is still queued behind a close gets no promise: its reply is dropped.
        commands.close();
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        shelf.drain().for_each(|(_, collection)| collection.close());
    }

    fn commit(&mut self, group: Vec<Upsert>) {
        if group.is_empty() {
            return;
        }
        if let Err(full) = self.limits.check_free_space(&self.directory, growth_of(&group)) {
            return group.into_iter().for_each(|upsert| answer(upsert.reply, Err(unavailable(full.to_string()))));
        }
        let mut by_collection: HashMap<String, Vec<Upsert>> = HashMap::new();
        for upsert in group {
            by_collection.entry(upsert.collection.clone()).or_default().push(upsert);
        }
        for (name, group) in by_collection {
            self.commit_one(&name, group);
        }
    }

    fn commit_one(&mut self, name: &str, group: Vec<Upsert>) {
        let Some(first) = group.first() else { return };
        let collection = match self.collection(name, &first.space) {
            Ok(collection) => collection,
            Err(error) => {
                tracing::error!(collection = name, error, "a collection cannot be made");
                let fail = |upsert: Upsert| answer(upsert.reply, Err(unavailable(error.clone())));
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
        metrics::histogram!("index_commit_seconds").record(started.elapsed().as_secs_f64());
        match stored {
            Ok(()) => {
                *self.changed.entry(name.to_string()).or_default() += count;
                metrics::counter!("index_points_total", "collection" => name.to_string()).increment(count as u64);
                waiting.into_iter().for_each(|reply| answer(reply, Ok(())));
            }
            Err(error) => {
                let text = error.to_string();
                tracing::error!(collection = name, error = text, "points were not stored");
                waiting.into_iter().for_each(|reply| answer(reply, Err(unavailable(text.clone()))));
            }
        }
    }

    /// The collection of that name, made for `space` if there is none.
    fn collection(&self, name: &str, space: &Space) -> Result<Arc<Collection>, String> {
        let known = self.shelf.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(collection) = known {
            return Ok(collection);
        }
        let made = Collection::create(self.directory.join(name), space).map_err(|error| error.to_string())?;
        let made = Arc::new(made);
        self.shelf.write().unwrap_or_else(PoisonError::into_inner).insert(name.into(), Arc::clone(&made));
        Ok(made)
    }

    /// Optimises collections that changed a lot, and rebuilds those whose log has outgrown them.
    fn tidy(&mut self, idle: bool) {
        let due = if idle { TIDY_AFTER } else { TIDY_AT_LAST };
        let names: Vec<String> =
            self.changed.iter().filter(|(_, changed)| **changed >= due).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.changed.remove(&name);
            let known = self.shelf.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
            let Some(collection) = known else { continue };
            if let Err(error) = self.tidy_one(&name, &collection) {
                tracing::warn!(collection = name, error = error.to_string(), "a collection could not be tidied up");
            }
        }
    }

    fn tidy_one(&self, name: &str, collection: &Collection) -> Result<(), BoxError> {
        let live_bytes = (collection.points() * (collection.space().dim * 4 + POINT_OVERHEAD)) as u64;
        // Either may write everything a second time, and a rebuild logs it as well.
        self.limits.check_free_space(&self.directory, COPY_FACTOR * live_bytes)?;
        collection.optimize()?;
        if collection.log_bytes() > self.limits.log_bytes.max(LOG_FACTOR * live_bytes) {
            collection.rebuild()?;
            metrics::counter!("index_rebuilds_total", "collection" => name.to_string()).increment(1);
        }
        metrics::gauge!("index_points", "collection" => name.to_string()).set(collection.points() as f64);
        metrics::gauge!("index_log_bytes", "collection" => name.to_string()).set(collection.log_bytes() as f64);
        Ok(())
    }
}

/// Payload, id and bookkeeping of a point, roughly.
const POINT_OVERHEAD: usize = 256;
/// What a copy of a collection may take, log included, in sizes of its points.
const COPY_FACTOR: u64 = 3;
/// How many times the size of its points a log may have. A rebuilt shard's own log is about 1.3 times.
const LOG_FACTOR: u64 = 4;

/// What a group may add to the disk: vector, payload and bookkeeping, and the same again in the log, where a number takes
/// five bytes.
fn growth_of(group: &[Upsert]) -> u64 {
    let points = group.iter().flat_map(|upsert| &upsert.points);
    points.map(|point| (9 * point.values.len() + 2 * POINT_OVERHEAD) as u64).sum()
}

/// Whether to go on after this command.
fn admit(command: Command, group: &mut Vec<Upsert>) -> bool {
    match command {
        Command::Upsert(upsert) => group.push(upsert),
        Command::Close => return false,
    }
    true
}

/// Nobody there means the asker has gone: its points are stored all the same.
fn answer(reply: oneshot::Sender<Result<(), IndexError>>, outcome: Result<(), IndexError>) {
    let _ = reply.send(outcome);
}
