//! Why work failed, in the only terms the engine needs.
//!
//! Four questions are kept apart: is *this event* bad ([`Rejection`], its neighbours go on), will it *probably work
//! later* ([`Fault::Retry`]), is *something else* out of reach ([`Fault::Unavailable`]), or is *the stage* broken
//! ([`Fault::Fatal`]).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// An error of a library or an upstream, kept for the log; clients never see its text.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why one event cannot be done, now or ever. Becomes an RFC 9457 problem for the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Rejection {
    /// HTTP status that says the same (design: 413 too large, 415 wrong type, 422 unusable, …).
    pub status: u16,
    /// Stable, snake_case, for programs.
    pub code: Cow<'static, str>,
    /// One sentence for the person: what was wrong, the limit, the value, what to do.
    pub detail: String,
}

impl Rejection {
    /// A rejection with its HTTP status, stable code and sentence.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code: Cow::Borrowed(code), detail: detail.into() }
    }

    /// 413: too many bytes, pixels or pages.
    pub fn too_large(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(413, code, detail)
    }

    /// 415: a type that is not taken, or content that is not what it claims to be.
    pub fn unsupported(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(415, code, detail)
    }

    /// 422: well-formed but unusable.
    pub fn unusable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(422, code, detail)
    }

    /// 500: our fault. `detail` must not carry internals.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(500, "internal", detail)
    }

    /// Whether the fault is on our side, so that a person should look at the dead letter. Too full, too late and
    /// not to be had here are not: the requester was told, and trying again is all there is to do.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.status >= 500 && !matches!(self.status, 501 | 503 | 504)
    }
}

/// Why a whole batch failed (for one bad event use [`Output::reject`](crate::Output::reject)).
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Will probably work later: the events come back after a delay. Counts as an attempt of each.
    #[error("temporarily unavailable")]
    Retry(#[source] BoxError),
    /// What the stage depends on is out of reach, whatever the events are: the stage waits for it with the events in its
    /// hands. Only an outage that lasts counts as an attempt.
    #[error("what the stage depends on is out of reach")]
    Unavailable(#[source] BoxError),
    /// The operator is broken: the flow stops and acknowledges nothing.
    #[error("operator failed")]
    Fatal(#[source] BoxError),
}

impl Fault {
    /// A fault that a later attempt may not meet.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self::Retry(error.into())
    }

    /// A fault of what the stage depends on.
    pub fn unavailable(error: impl Into<BoxError>) -> Self {
        Self::Unavailable(error.into())
    }

    /// A fault that no attempt will get past.
    pub fn fatal(error: impl Into<BoxError>) -> Self {
        Self::Fatal(error.into())
    }
}
