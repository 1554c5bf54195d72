//! The event: one item that flows through the stages of a flow.
//!
//! On the wire it is a CloudEvents 1.0 event in binary mode (attributes are NATS headers); in a process it is this. What
//! the root event and all its descendants share is in one [`Envelope`], so that a child costs an id and a payload.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::engine::Root;
use crate::names::{EventId, FlowName, RequestId};
use crate::payload::Payload;

/// The class of work an event belongs to. Interactive work is never starved by bulk work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// Nobody waits: imports, re-indexing, what `caudal send` brings.
    Bulk,
}

impl Lane {
    /// Both lanes, in order of preference.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Bulk];

    /// The lane as a subject token and as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }
}

/// What travels beside the payload and is the same for an event and all its descendants.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Id of the root event; `ce-id` and `Nats-Msg-Id` on the wire.
    pub id: EventId,
    /// The flow it was sent to.
    pub flow: FlowName,
    /// Its class of work.
    pub lane: Lane,
    /// `ce-type`: what happened, for example `caudal.describe`.
    pub kind: Arc<str>,
    /// `ce-source`: where, for example `/embeddings/generate`.
    pub source: Arc<str>,
    /// `ce-time`: when the source saw it.
    pub time: OffsetDateTime,
    /// Set when somebody may ask for the result under this id; `None` for device data.
    pub request: Option<RequestId>,
    /// From when on nobody wants the result.
    pub deadline: Option<OffsetDateTime>,
    /// W3C trace context of the caller.
    pub traceparent: Option<Arc<str>>,
    /// Path and query parameters of the route, checked by the gateway; empty for events published directly.
    pub params: Params,
    /// Which delivery this is, from 1. Never part of an effect's identity.
    pub attempt: u32,
}

/// The parameter that holds the tenant an event was sent for: 1 to 256 bytes of text. The gateway sets it where callers say
/// who they are; no route can declare one that begins so.
pub const TENANT_PARAM: &str = "_tenant";

/// Named values beside the payload, for example `report_id`.
pub type Params = BTreeMap<String, serde_json::Value>;

impl Envelope {
    /// An envelope with nothing optional in it.
    #[must_use]
    pub fn new(flow: FlowName, id: EventId) -> Self {
        Self {
            id,
            flow,
            lane: Lane::Interactive,
            kind: "caudal.event".into(),
            source: "/".into(),
            time: OffsetDateTime::now_utc(),
            request: None,
            deadline: None,
            traceparent: None,
            params: Params::new(),
            attempt: 1,
        }
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= OffsetDateTime::now_utc())
    }

    /// Whom the event was sent for; `None` where nobody is asked who they are.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.text_param(TENANT_PARAM).filter(|tenant| !tenant.is_empty())
    }

    /// A parameter that must be text, for example the id an effect is stored under.
    #[must_use]
    pub fn text_param(&self, name: &str) -> Option<&str> {
        self.params.get(name)?.as_str()
    }
}

/// Children of one event that still sort as they were emitted.
const ORDER_BASE: u64 = 1 << 16;

/// One item travelling through a flow. Cloning shares everything.
#[derive(Clone, Debug)]
pub struct Event {
    /// The same on every redelivery; sinks upsert by it.
    pub id: EventId,
    /// Shared with every descendant of the same root.
    pub envelope: Arc<Envelope>,
    /// What it carries.
    pub payload: Payload,
    /// Sorts what the parts of a split event answer.
    pub(crate) order: u64,
    /// Counts the descendants still in work; the runner's business alone.
    pub(crate) root: Arc<Root>,
}

impl Event {
    /// The id of what this event becomes elsewhere, for example in another flow: always the same, and never its own, so
    /// that two flows do not answer one request.
    #[must_use]
    pub fn child_id(&self, stage: &str) -> EventId {
        self.id.child(stage, 0)
    }

    /// Whether the requester has given it up. The engine looks before each stage; an operator looks between costly steps.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.root.cancellation.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Resolves when the requester gives it up; never, where nobody asked. For operators that can break off.
    pub async fn cancelled(&self) {
        match &self.root.cancellation {
            Some(token) => token.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// The `ordinal`-th event that `stage` makes of this one.
    pub(crate) fn child(&self, stage: &str, ordinal: u32, payload: Payload) -> Self {
        Self {
            id: self.id.child(stage, ordinal),
            envelope: Arc::clone(&self.envelope),
            payload,
            order: self.order.wrapping_mul(ORDER_BASE).wrapping_add(u64::from(ordinal)),
            root: Arc::clone(&self.root),
        }
    }
}
