//! The tasks of an engine, each with a name for the message about its end.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

use crate::fault::BoxError;

/// How a task ended.
pub type TaskResult = Result<(), BoxError>;

/// Tasks by name. Dropped, it aborts those that still run.
#[derive(Default)]
pub struct Tasks {
    set: JoinSet<TaskResult>,
    names: HashMap<Id, String>,
}

impl Tasks {
    /// Starts a task.
    pub fn spawn(&mut self, name: String, task: impl Future<Output = TaskResult> + Send + 'static) {
        self.names.insert(self.set.spawn(task).id(), name);
    }

    /// Waits for the next task to end; `None` once all have.
    ///
    /// # Errors
    /// If it failed or panicked, with its name.
    pub async fn next_end(&mut self) -> Option<TaskResult> {
        let (id, result) = match self.set.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(error.into())),
        };
        let name = self.names.get(&id).map_or("a task", String::as_str);
        Some(result.map_err(|error| format!("{name} stopped: {error}").into()))
    }
}
