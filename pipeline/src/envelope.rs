//! The envelope: the attributes that an event and all its descendants share.
//!
//! On the wire an event is a CloudEvents 1.0 event in binary mode, and these attributes are its NATS headers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::names::{EventId, FlowName, RequestId};

/// The class of work an event belongs to. Interactive work is never starved by bulk work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// A client waits for the result.
    #[default]
    Interactive,
    /// No client waits: imports, re-indexing, events from `caudal send`.
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

/// Attributes beside the payload, the same for an event and all its descendants.
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
    /// The id under which a client can read the result; `None` for device data.
    pub request: Option<RequestId>,
    /// When the result stops being useful. Work that has not begun by then is rejected.
    pub deadline: Option<OffsetDateTime>,
    /// W3C trace context of the caller.
    pub traceparent: Option<Arc<str>>,
    /// Path and query parameters of the route, checked by the gateway; empty for events published directly.
    pub params: Params,
    /// Number of this delivery, from 1. Never part of an effect's identity.
    pub attempt: u32,
}

/// The parameter that holds the tenant an event was sent for: 1 to 256 bytes of text. The gateway sets it when
/// authentication is on; no route can declare a parameter that begins with an underscore.
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

    /// The tenant the event was sent for; `None` when authentication is off.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.text_param(TENANT_PARAM).filter(|tenant| !tenant.is_empty())
    }

    /// A text parameter, for example the id an effect is stored under; `None` if it is absent or not text.
    #[must_use]
    pub fn text_param(&self, name: &str) -> Option<&str> {
        self.params.get(name)?.as_str()
    }
}
