//! The vector index with a kill point behind every effect; it stands still while the file `stall` lies in the folder.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pipeline::{BoxError, Hit, IndexError, Nearest, Point, Space, VectorIndex};

use crate::arm;

/// How often it is looked whether the index may go on.
const LOOK: Duration = Duration::from_millis(20);

/// Puts kill points around an index.
pub fn wrap(within: Arc<dyn VectorIndex>) -> Arc<dyn VectorIndex> {
    Arc::new(Faulty(within))
}

struct Faulty(Arc<dyn VectorIndex>);

#[async_trait]
impl VectorIndex for Faulty {
    async fn upsert(&self, collection: &str, space: &Space, points: Vec<Point>) -> Result<(), IndexError> {
        if arm::is_set("stall") {
            // A mark, so that the tests know that somebody stands here.
            arm::mark("stalled", collection).map_err(|error| IndexError::Unavailable(error.into()))?;
            while arm::is_set("stall") {
                tokio::time::sleep(LOOK).await;
            }
        }
        self.0.upsert(collection, space, points).await?;
        arm::pass("indexed", "*");
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
