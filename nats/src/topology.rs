//! The declared topology: the flows and bounds for which streams are created. Data only; `link/ensure.rs` creates
//! them.

use pipeline::FlowName;
use pipeline::spec::{BacklogSpec, ByteSize};

use crate::spec::Limits;

/// Partitions of a lane with ordered keys: all events of a key are in the same partition.
pub const PARTITIONS: u32 = 8;
/// Disk for the service's own records. They are bounded by number and fill about half of this.
pub const OWN_RECORDS_BYTES: u64 = 512 << 20;
/// Disk for the canary stream, which holds one message.
pub const CANARY_BYTES: u64 = 1 << 20;
/// Disk for the ledger: half a million events, each noted in a message of its own.
pub const LEDGER_BYTES: u64 = 128 << 20;
/// The streams that the broker must have.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Every declared flow, whether this process works on it or only submits to it.
    pub flows: Vec<FlowTopology>,
    /// Bounds of the streams that all flows share.
    pub limits: Limits,
}

/// What a flow's stream and consumers are created from.
#[derive(Clone, Debug)]
pub struct FlowTopology {
    /// `NAME` of `[flow.NAME]`.
    pub name: FlowName,
    /// Bound of the work queue.
    pub backlog: BacklogSpec,
    /// Whether every event of the flow is a request, named by the event's id.
    pub answers: bool,
    /// The parameter by which events are kept in order; `None` if the flow has no order.
    pub order_by: Option<String>,
}

impl Topology {
    /// Disk that all streams of the topology may fill together: the sum of their bounds, which the broker reserves.
    #[must_use]
    pub fn reserved(&self) -> ByteSize {
        let shared = [
            self.limits.results_max_bytes,
            self.limits.claims_max_bytes,
            self.limits.dead_max_bytes,
            self.limits.records_max_bytes,
        ];
        let flows = self.flows.iter().map(|flow| flow.backlog.bytes);
        let sum: u64 = shared.into_iter().chain(flows).map(|size| size.0).sum();
        ByteSize(sum + CANARY_BYTES + LEDGER_BYTES + OWN_RECORDS_BYTES)
    }
}
