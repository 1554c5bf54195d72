//! The state of the in-memory transport, shared by its clones, sources and deliveries.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::envelope::Lane;
use crate::ledger::{Entry, LedgerUpdate};
use crate::names::{FlowName, RequestId, Token};
use crate::outcome::Outcome;
use crate::transport::{DeadLetter, Record, Submission, TransportError};

#[derive(Default)]
pub struct LaneState {
    /// Events with the number of their next delivery.
    pub waiting: VecDeque<(Submission, u32)>,
    /// Events delivered and not settled.
    pub in_flight: u64,
    /// Ids that are refused as repeats.
    pub known: HashSet<Token>,
}

#[derive(Default)]
pub struct State {
    pub lanes: HashMap<(FlowName, Lane), LaneState>,
    /// Most events of each lane, by flow; the flows that are declared.
    pub limits: HashMap<FlowName, usize>,
    pub outcomes: HashMap<RequestId, BTreeMap<u32, Outcome>>,
    pub watchers: HashMap<RequestId, Vec<mpsc::Sender<Arc<Outcome>>>>,
    pub listeners: Vec<mpsc::Sender<RequestId>>,
    pub tails: HashMap<FlowName, Vec<mpsc::Sender<Submission>>>,
    pub claims: HashMap<Token, Bytes>,
    pub records: HashMap<(Token, Token), Record>,
    /// The last revision of a record.
    pub writes: u64,
    pub ledger: Vec<Entry>,
    pub ledger_readers: Vec<mpsc::Sender<LedgerUpdate>>,
    /// Processes that are announced.
    pub alive: HashSet<Token>,
    /// Events acknowledged, by flow.
    pub ended: HashMap<FlowName, u64>,
    /// Why events were handed back, in order.
    pub reasons: Vec<Arc<str>>,
    /// By id.
    pub dead: BTreeMap<u64, DeadLetter>,
    /// The last id of a dead letter.
    pub dead_count: u64,
    /// Whether every call that needs the broker fails.
    pub down: bool,
}

/// See the file's header. Cheap to clone.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    state: Arc<Mutex<State>>,
    /// Notified whenever an event is added to a lane.
    pub filled: Arc<Notify>,
}

impl MemoryBroker {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless the broker is down.
    pub fn up(&self) -> Result<MutexGuard<'_, State>, TransportError> {
        let state = self.lock();
        if state.down { Err(TransportError::unavailable("the broker is down")) } else { Ok(state) }
    }
}
