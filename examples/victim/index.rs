//! Wraps the vector index: a kill point after every write, and a stall while the file `stall` exists,
//! and an outage while the file `away` does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pipeline::{BoxError, Hit, IndexError, Nearest, Point, Space, VectorIndex};

use crate::faults;

/// Interval between two checks of the file `stall`.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Wraps an index.
pub fn wrap(inner: Arc<dyn VectorIndex>) -> Arc<dyn VectorIndex> {
    Arc::new(Faulty(inner))
}

struct Faulty(Arc<dyn VectorIndex>);

#[async_trait]
impl VectorIndex for Faulty {
    async fn upsert(&self, collection: &str, space: &Space, points: Vec<Point>) -> Result<(), IndexError> {
        if faults::is_set("away") {
            faults::mark("refused", collection).map_err(|error| IndexError::Unavailable(error.into()))?;
            return Err(IndexError::Unavailable("the file `away` exists".into()));
        }
        if faults::is_set("stall") {
            // Tells the test that a write is stalled.
            faults::mark("stalled", collection).map_err(|error| IndexError::Unavailable(error.into()))?;
            while faults::is_set("stall") {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        self.0.upsert(collection, space, points).await?;
        faults::pass("indexed", "*");
        Ok(())
    }

    async fn search(&self, collection: &str, space: &Space, nearest: Nearest<'_>) -> Result<Vec<Hit>, IndexError> {
        self.0.search(collection, space, nearest).await
    }

    async fn ready(&self) -> Result<(), BoxError> {
        self.0.ready().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
