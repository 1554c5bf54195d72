//! Restarts the private server when it refuses writes although its disk has room.
//!
//! nats-server 2.15 refuses every further write to a stream in which one failed, without an answer and until it is
//! restarted; its other streams go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::server::disk_space::DiskSpace;
use crate::server::supervisor::Supervisor;

/// Restarts one private server. A clone restarts the same one.
#[derive(Clone)]
pub struct Restarter {
    supervisor: Arc<Supervisor>,
    /// The folder of the store.
    directory: PathBuf,
}

impl Restarter {
    pub(super) fn new(supervisor: Arc<Supervisor>, directory: PathBuf) -> Self {
        Self { supervisor, directory }
    }

    /// The folder whose file system must have room.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Free bytes, if they are enough for the server to go on.
    pub(crate) fn room(&self) -> Option<u64> {
        let space = DiskSpace::of(&self.directory).ok()?;
        space.has_room().then_some(space.free)
    }

    /// Asks the server to end; the next one is started on the same port. Called again before it has ended, kills it.
    pub(crate) fn restart(&self) {
        self.supervisor.restart();
    }
}

impl std::fmt::Debug for Restarter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Restarter").field("directory", &self.directory).finish_non_exhaustive()
    }
}
