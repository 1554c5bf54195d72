//! What a program adds to this one: operators of its own, and wrappers around parts.

use std::sync::Arc;

use gateway::ReadinessChecks;
use pipeline::{OperatorKind, Transport, VectorIndex};

/// Wraps a part: takes the part and returns what is used in its place.
pub type Wrap<T> = fn(Arc<T>) -> Arc<T>;

/// What a program adds to this one.
#[derive(Clone, Default)]
pub struct Extras {
    /// Operators beside the built-in ones.
    pub kinds: Vec<OperatorKind>,
    /// Wraps the transport that flows and gateway use.
    pub wrap_transport: Option<Wrap<dyn Transport>>,
    /// Wraps the vector index.
    pub wrap_index: Option<Wrap<dyn VectorIndex>>,
    /// Changes the checks behind `/ready`, say by adding those of services that only this program has.
    pub change_checks: Option<fn(&mut ReadinessChecks)>,
}
