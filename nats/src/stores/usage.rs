//! What the stores hold, for metrics: disk space of all streams, and dead letters by flow.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use pipeline::{FlowName, TransportError};

use crate::link::broker::Broker;
use crate::wire::subjects;

/// Disk space of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageUsage {
    /// Bytes that all streams of the account use.
    pub used: u64,
    /// Bytes that they may use; `None` where the account has no limit of its own.
    pub limit: Option<u64>,
}

/// Asks for the disk space of the account.
pub async fn storage(broker: &Broker) -> Result<StorageUsage, TransportError> {
    let account = broker.publishing.context.query_account().await.map_err(TransportError::unavailable)?;
    let limit = account.limits.max_storage.and_then(|limit| u64::try_from(limit).ok());
    Ok(StorageUsage { used: account.storage, limit })
}

/// Counts the stored dead letters of each flow that has any.
pub async fn dead_letter_counts(broker: &Broker) -> Result<HashMap<FlowName, u64>, TransportError> {
    let context = &broker.publishing.context;
    let stream = context.get_stream_no_info(subjects::DEAD_LETTERS).await.map_err(TransportError::unavailable)?;
    let counted = stream.info_with_subjects(subjects::DEAD_LETTER_SUBJECTS).await;
    let counted: Vec<(String, usize)> =
        counted.map_err(TransportError::unavailable)?.try_collect().await.map_err(TransportError::unavailable)?;
    Ok(counted
        .into_iter()
        .filter_map(|(subject, count)| Some((subjects::parse_dead_letter_flow(&subject)?, count as u64)))
        .collect())
}
