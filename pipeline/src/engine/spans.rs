//! Trace spans of a settled root: one for the flow, and within it one for each stage that worked on a descendant.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::flow_shared::FlowShared;
use crate::event::Root;
use crate::trace::{Span, SpanKind, Spans, TraceContext, wall_time};
use crate::transport::Settlement;

/// Exports the spans of a root that is settled, if its trace is sampled.
pub fn export(spans: &dyn Spans, flow: &FlowShared, root: &Root, settlement: &Settlement) {
    let context = root.envelope.traceparent.as_deref().and_then(TraceContext::parse);
    let Some(request) = context.filter(|context| context.sampled) else { return };
    let own = request.child();
    let error = match settlement {
        Settlement::Retry(_, why) => Some(why.to_string()),
        _ => root.failed.load(Ordering::Relaxed).then(|| "failed".to_owned()),
    };
    for worked in root.stage_timings() {
        spans.take(Span {
            context: own.child(),
            parent: Some(own.span),
            name: worked.stage.to_string(),
            kind: SpanKind::Internal,
            begun: wall_time(worked.begun),
            took: worked.took(),
            attributes: vec![("caudal.events", worked.events.into())],
            error: None,
        });
    }
    spans.take(Span {
        context: own,
        parent: Some(request.span),
        name: flow.name.to_string(),
        kind: SpanKind::Consumer,
        begun: wall_time(root.begun),
        took: Instant::now().saturating_duration_since(root.begun),
        attributes: vec![
            ("messaging.system", "nats".into()),
            ("messaging.message.id", root.envelope.id.as_str().into()),
            ("caudal.lane", root.envelope.lane.as_str().into()),
            ("caudal.delivery", root.envelope.attempt.into()),
        ],
        error,
    });
}
