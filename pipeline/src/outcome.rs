//! Results of a request: any number of intermediate ones and exactly one terminal result.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::names::FlowName;
use crate::payload::Content;

/// The kinds of result. Their names are the event names of the SSE stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeKind {
    /// The broker has stored the event.
    Accepted,
    /// Work has begun or moved on.
    Progress,
    /// A part of the answer.
    Data,
    /// Terminal: the answer.
    Done,
    /// Terminal: a problem (RFC 9457) instead of an answer.
    Failed,
    /// Terminal: the client cancelled the request.
    Cancelled,
}

impl OutcomeKind {
    /// The event name in an SSE stream and the value of the wire header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Progress => "progress",
            Self::Data => "data",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The kind with this name, as [`as_str`](Self::as_str) gives it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Accepted, Self::Progress, Self::Data, Self::Done, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }

    /// Whether no other result can follow.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// One result of a request.
///
/// `accepted` has ordinal 0 and every later result the next number, the terminal one included: the ordinal is the SSE `id`,
/// the same on every gateway and after every attempt.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its kind.
    pub kind: OutcomeKind,
    /// Position within the request.
    pub ordinal: u32,
    /// The flow that made it.
    pub flow: FlowName,
    /// When it was made.
    pub time: OffsetDateTime,
    /// The time each stage took; set in a terminal result. Covers the part of the flow that made the result, not the parts
    /// before it.
    pub stage_times: Vec<(Arc<str>, Duration)>,
    /// `done` carries the answer, `failed` a [`Rejection`](crate::Rejection) as JSON.
    pub content: Content,
}

impl Outcome {
    /// A result made now.
    #[must_use]
    pub fn new(kind: OutcomeKind, ordinal: u32, flow: FlowName, content: Content) -> Self {
        Self { kind, ordinal, flow, time: OffsetDateTime::now_utc(), stage_times: Vec::new(), content }
    }
}
