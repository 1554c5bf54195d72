//! Runs the readiness checks of components, at most once a second.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::door::metrics;
use crate::state::ReadinessChecks;

/// How long a result of the checks is current.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Longest time of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// The checks, by component, and their last result.
pub struct Readiness {
    checks: ReadinessChecks,
    /// Locked while the checks run, so that concurrent requests run them once.
    last: Mutex<Option<(Instant, Vec<String>)>>,
}

impl Readiness {
    pub fn new(checks: ReadinessChecks) -> Self {
        Self { checks, last: Mutex::new(None) }
    }

    /// Names of the components that are not ready.
    pub async fn failing(&self) -> Vec<String> {
        let mut last = self.last.lock().await;
        if let Some((at, failing)) = &*last
            && at.elapsed() < MAX_AGE
        {
            return failing.clone();
        }
        let outcomes = join_all(self.checks.iter().map(|(name, check)| async move {
            let why = match tokio::time::timeout(CHECK_TIMEOUT, check()).await {
                Ok(Ok(())) => return None,
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {CHECK_TIMEOUT:?}"),
            };
            tracing::warn!(component = %name, %why, "component not ready");
            Some(name.clone())
        }));
        let failing: Vec<String> = outcomes.await.into_iter().flatten().collect();
        for (name, _) in &self.checks {
            metrics::set_ready(name, !failing.contains(name));
        }
        *last = Some((Instant::now(), failing.clone()));
        failing
    }
}
