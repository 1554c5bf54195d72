//! What every part of the transport shares: the connections, the declared flows, the limits, and the stop signal.

use std::collections::HashMap;
use std::sync::Arc;

use pipeline::{FlowName, TransportError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::link::connection::Connection;
use crate::link::flow::DeclaredFlow;
use crate::link::stream_health::StreamHealth;
use crate::spec::Limits;

/// The broker as this process uses it. One connection per kind of traffic, so that a burst of one kind delays no other.
pub struct Broker {
    /// Events, records, canaries.
    pub publishing: Connection,
    /// Results, dead letters and ledger entries, written and read.
    pub results: Connection,
    /// Deliveries and their acknowledgements.
    pub work: Connection,
    /// Bodies in the object store.
    pub objects: Connection,
    /// Streams that are followed (results, the ledger) and tails.
    pub live: Connection,
    /// Bounds of the streams that all flows share.
    pub limits: Limits,
    /// Cancelled when the transport is closed or dropped.
    pub stop: CancellationToken,
    /// Tasks that end after `stop` is cancelled.
    pub tasks: TaskTracker,
    /// The declared flows.
    pub flows: HashMap<FlowName, Arc<DeclaredFlow>>,
    /// Which streams store what is sent to them.
    pub health: StreamHealth,
}

impl Broker {
    /// A declared flow.
    pub fn flow(&self, name: &FlowName) -> Result<Arc<DeclaredFlow>, TransportError> {
        self.flows.get(name).cloned().ok_or_else(|| TransportError::NoFlow(name.clone()))
    }

    /// Connections on which something may be waiting to be sent when the transport is closed.
    pub fn sending_connections(&self) -> [&Connection; 4] {
        [&self.publishing, &self.results, &self.work, &self.objects]
    }
}
