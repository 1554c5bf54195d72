//! Why work failed, in the only terms the engine needs.
//!
//! There are four cases: *this event* is bad ([`Rejection`]; the other events of the batch go on), the batch will *probably
//! work later* ([`Fault::Retry`]), *a dependency* is out of reach ([`Fault::Unavailable`]), or *the stage* is broken
//! ([`Fault::Fatal`]).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::parse_message::shortened;

/// Longest detail of a rejection, in characters: an error must not repeat what it is about.
pub const MAX_DETAIL: usize = 2_000;

/// An error of a library or an upstream, for the log; clients never see its text.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why one event cannot be processed, now or later. Becomes an RFC 9457 problem for the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Rejection {
    /// The HTTP status: 413 too large, 415 wrong type, 422 unusable, and so on.
    pub status: u16,
    /// Stable, snake_case, for programs.
    pub code: Cow<'static, str>,
    /// One sentence for the person: what was wrong, the limit, the value, what to do.
    pub detail: String,
}

impl Rejection {
    /// A rejection with its HTTP status, stable code and sentence.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > MAX_DETAIL {
            detail = shortened(&detail, MAX_DETAIL);
        }
        Self { status, code: Cow::Borrowed(code), detail }
    }

    /// 413: too many bytes, pixels or pages.
    pub fn too_large(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(413, code, detail)
    }

    /// 415: a type that is not accepted, or content that is not of its declared type.
    pub fn unsupported(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(415, code, detail)
    }

    /// 422: well-formed but unusable.
    pub fn unusable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(422, code, detail)
    }

    /// 500: a fault of the service. `detail` must not carry internals.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(500, "internal", detail)
    }

    /// Whether the service is at fault, so that a person should look at the dead letter. 501 not available here, 503 full
    /// and 504 too late are not: the requester got the answer, and all there is to do is to try again.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.status >= 500 && !matches!(self.status, 501 | 503 | 504)
    }
}

/// Why a whole batch failed (for one bad event use [`Output::reject`](crate::Output::reject)).
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Will probably work later: the events are redelivered after a delay. Counts as an attempt of each.
    #[error("temporarily unavailable")]
    Retry(#[source] BoxError),
    /// A dependency of the stage is out of reach, whatever the events are (a refused connection, a full disk). The stage
    /// keeps the events and calls the operator again until the dependency is back. Only an outage longer than
    /// `retry.outage_ms`, if that is set, counts as an attempt.
    #[error("a dependency of the stage is out of reach")]
    Unavailable(#[source] BoxError),
    /// The operator is broken: the flow stops and acknowledges nothing.
    #[error("operator failed")]
    Fatal(#[source] BoxError),
}

impl Fault {
    /// A fault that a later attempt may avoid.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self::Retry(error.into())
    }

    /// A fault of a dependency.
    pub fn unavailable(error: impl Into<BoxError>) -> Self {
        Self::Unavailable(error.into())
    }

    /// A fault that every attempt would end in.
    pub fn fatal(error: impl Into<BoxError>) -> Self {
        Self::Fatal(error.into())
    }
}
