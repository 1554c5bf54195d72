//! Runs work off the async runtime that would block it.

use crate::problem::Problem;

/// Runs work that takes longer than the runtime may be blocked.
///
/// # Errors
/// 500 if the work panics.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "parsing failed");
        Problem::internal()
    })
}
