//! Admission control: refuses a request whose queue is full, or whose estimated wait exceeds its deadline, before its
//! body is read.

use std::time::Duration;

use pipeline::{Envelope, FlowName, Lane, TransportError};

use crate::problem::Problem;
use crate::state::Shared;

/// Admits a request, or says when to try again.
///
/// # Errors
/// 503: the queue is full, the request would be done too late, or the broker does not tell.
pub async fn admit(state: &Shared, envelope: &Envelope) -> Result<(), Problem> {
    let (flow, lane) = (&envelope.flow, envelope.lane);
    if state.drain_rates.is_full(flow, lane).await {
        return Err(refusal(state, TransportError::Full { flow: flow.clone() }, lane));
    }
    let Some(deadline) = state.flows.get(flow).and_then(|flow| flow.deadline) else { return Ok(()) };
    let Some(outlook) = state.drain_rates.outlook(flow, lane).await else {
        let detail = "the expected wait is not known, so the request might be done too late: try again later";
        return Err(Problem::unavailable("wait_unknown", detail));
    };
    match outlook.wait {
        Some(wait) if wait > deadline => Err(would_be_late(state, flow, wait, deadline)),
        _ => Ok(()),
    }
}

fn would_be_late(state: &Shared, flow: &FlowName, wait: Duration, deadline: Duration) -> Problem {
    let (wait, deadline) = (wait.as_secs_f64(), deadline.as_secs_f64());
    let detail = format!("a new request would wait {wait:.1} s, but its deadline is {deadline:.1} s: try again later");
    Problem::unavailable("would_be_late", detail).with_retry_after(state.drain_rates.retry_after(flow))
}

/// The problem of a submission that the broker refused; if the flow is full, with a measured `Retry-After`.
pub fn refusal(state: &Shared, error: TransportError, lane: Lane) -> Problem {
    let full = match &error {
        TransportError::Full { flow } => Some(flow.clone()),
        _ => None,
    };
    let problem = Problem::from(error);
    let Some(flow) = full else { return problem };
    state.drain_rates.note_refusal(&flow, lane);
    problem.with_retry_after(state.drain_rates.retry_after(&flow))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use axum::http::header;
    use axum::response::IntoResponse;
    use pipeline::testing::{MemoryTransport, TransportWrapper};
    use pipeline::{Backlog, Transport};

    use super::*;
    use crate::flow_entry::FlowEntry;
    use crate::testing::{flow, flow_entry, state};

    /// A broker that reports a given backlog.
    struct Backlogged {
        inner: MemoryTransport,
        backlog: Mutex<Backlog>,
    }

    #[async_trait]
    impl TransportWrapper for Backlogged {
        fn within(&self) -> &dyn Transport {
            &self.inner
        }

        async fn backlog(&self, _: &FlowName) -> Result<Backlog, TransportError> {
            Ok(*self.backlog.lock().unwrap())
        }
    }

    fn with_deadline(seconds: u64) -> FlowEntry {
        FlowEntry { deadline: Some(Duration::from_secs(seconds)), ..flow_entry("slow") }
    }

    fn envelope() -> Envelope {
        Envelope::new(flow("slow"), flow("request"))
    }

    /// A state in which 100 events wait and 10 are done per second.
    async fn busy(entry: FlowEntry) -> crate::GatewayState {
        let waiting = |ended| Backlog { interactive: 100, bulk: 0, ended };
        let transport = Arc::new(Backlogged {
            inner: MemoryTransport::with_flows([("slow", 1000)]),
            backlog: Mutex::new(waiting(0)),
        });
        let state = state(Arc::clone(&transport) as Arc<dyn Transport>, vec![entry]);
        state.drain_rates.sample().await;
        for second in 1..=3 {
            tokio::time::advance(Duration::from_secs(1)).await;
            *transport.backlog.lock().unwrap() = waiting(10 * second);
            state.drain_rates.sample().await;
        }
        state
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_would_be_late_is_refused_with_retry_after() {
        let state = busy(with_deadline(5)).await;
        let response = admit(&state, &envelope()).await.unwrap_err().into_response();
        assert_eq!(response.status().as_u16(), 503);
        let seconds: u64 = response.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_names_the_wait_and_the_deadline() {
        let state = busy(with_deadline(5)).await;
        let text = admit(&state, &envelope()).await.unwrap_err().to_string();
        assert!(text.contains("would_be_late") && text.contains("10.0 s") && text.contains("5.0 s"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_will_be_in_time_is_admitted() {
        let state = busy(with_deadline(30)).await;
        admit(&state, &envelope()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_without_a_deadline_admits_whatever_the_wait() {
        let state = busy(flow_entry("slow")).await;
        admit(&state, &envelope()).await.unwrap();
    }

    #[tokio::test]
    async fn an_unknown_wait_is_refused() {
        let transport = MemoryTransport::with_flows([("slow", 10)]);
        transport.set_down(true);
        let state = state(Arc::new(transport), vec![with_deadline(5)]);
        let problem = admit(&state, &envelope()).await.unwrap_err();
        assert!(problem.to_string().contains("wait_unknown"), "{problem}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_refused_an_event_refuses_the_next_request() {
        let state = busy(FlowEntry { backlog: 100, ..flow_entry("slow") }).await;
        let full = refusal(&state, TransportError::Full { flow: flow("slow") }, Lane::Interactive);
        assert!(full.to_string().contains("queue_full"), "{full}");
        let problem = admit(&state, &envelope()).await.unwrap_err();
        assert!(problem.to_string().contains("queue_full"), "{problem}");
    }
}
