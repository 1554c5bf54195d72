//! Tracing: the W3C Trace Context of a request, and the spans of its work.
//!
//! A request without a context gets one at the gateway. Spans are made when their work has ended, from times that were
//! recorded anyway, and passed to a [`Spans`], which must not block; without one no span is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

/// The caller's place in a trace: `00-<trace>-<span>-<flags>` in the header `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never 0.
    pub trace: u128,
    /// The parent span of whatever comes next; never 0.
    pub span: u64,
    /// Whether the spans of the trace are exported.
    pub sampled: bool,
}

impl TraceContext {
    /// A trace of its own.
    #[must_use]
    pub fn fresh(sampled: bool) -> Self {
        Self { trace: rand::random::<u128>().max(1), span: new_span(), sampled }
    }

    /// A span within this one.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: new_span(), ..self }
    }

    /// Reads a header; `None` unless it is well-formed (W3C Trace Context, section 3.2.2).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags] = fields.as_slice() else { return None };
        let hex = |field: &str, length| {
            field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let whole = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && *version != "ff";
        if !whole {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

fn new_span() -> u64 {
    rand::random::<u64>().max(1)
}

/// The kind of work a span covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A request from outside.
    Server,
    /// An event received from a queue.
    Consumer,
    /// A part of either.
    Internal,
}

/// A span: a piece of work that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its own context.
    pub context: TraceContext,
    /// The parent span.
    pub parent: Option<u64>,
    /// `POST /embeddings/generate`, `describe`, `decode`: from a bounded set.
    pub name: String,
    /// The kind of work.
    pub kind: SpanKind,
    /// When it began.
    pub begun: OffsetDateTime,
    /// How long it took.
    pub took: Duration,
    /// Further attributes. Never a secret, never a payload.
    pub attributes: Vec<(&'static str, SpanValue)>,
    /// The error, in a few words.
    pub error: Option<String>,
}

/// The value of a span's attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanValue {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for SpanValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u32> for SpanValue {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// Receives spans.
pub trait Spans: Send + Sync {
    /// The context of a request that came with `parent`: a child of it, or a new trace.
    fn place(&self, parent: Option<TraceContext>) -> TraceContext;

    /// Receives a span of a sampled trace; drops it if there is no room. Never blocks.
    fn take(&self, span: Span);
}

/// The work of one stage on the descendants of one event.
#[derive(Clone, Debug)]
pub struct StageTiming {
    /// The stage.
    pub stage: Arc<str>,
    /// When a worker first took one of them.
    pub begun: Instant,
    /// When the last one was done.
    pub ended: Instant,
    /// How many events.
    pub events: u32,
}

impl StageTiming {
    /// From the first beginning to the last end.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.ended.saturating_duration_since(self.begun)
    }
}

/// The wall-clock time of an instant.
#[must_use]
pub fn wall_time(instant: Instant) -> OffsetDateTime {
    OffsetDateTime::now_utc() - instant.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_context_is_read_and_it_is_written_as_it_was() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceContext::parse(good).unwrap().to_string(), good);
        let off = good.replace("b7-01", "b7-00");
        assert_eq!(TraceContext::parse(&off).unwrap().to_string(), off);
        let zero_trace = good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_span = good.replace("00f067aa0ba902b7", &"0".repeat(16));
        let longer = format!("{good}-");
        for bad in
            ["", "00-0-0-00", &good.to_uppercase(), &zero_trace, &zero_span, &longer, &good.replace("00-4", "ff-4")]
        {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_child_is_of_the_same_trace() {
        let parent = TraceContext::fresh(true);
        let child = parent.child();
        assert!(child.trace == parent.trace && child.span != parent.span && child.sampled);
        assert_eq!(TraceContext::parse(&child.to_string()), Some(child));
    }
}
