//! The in-memory transport's source: delivers the events of one lane, and redelivers those that are not settled.

use async_trait::async_trait;

use super::memory_broker::MemoryBroker;
use crate::envelope::Lane;
use crate::names::FlowName;
use crate::transport::{Acknowledge, Delivery, Settlement, Source, Submission};

/// A source of one lane.
pub struct MemorySource {
    pub broker: MemoryBroker,
    pub key: (FlowName, Lane),
}

#[async_trait]
impl Source for MemorySource {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let filled = self.broker.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            let next = {
                let mut state = self.broker.lock();
                let lane = state.lanes.entry(self.key.clone()).or_default();
                let next = lane.waiting.pop_front();
                lane.in_flight += u64::from(next.is_some());
                next
            };
            let Some((submission, attempt)) = next else {
                filled.await;
                continue;
            };
            let mut envelope = submission.envelope.clone();
            envelope.attempt = attempt;
            let payload = submission.payload.clone();
            let ack =
                MemoryAck { broker: self.broker.clone(), key: self.key.clone(), event: Some((submission, attempt)) };
            return Some(Delivery { envelope, payload, ack: Box::new(ack) });
        }
    }
}

/// The handle of a delivered event. Dropped unsettled, it hands the event back.
struct MemoryAck {
    broker: MemoryBroker,
    key: (FlowName, Lane),
    /// The event with the number of its delivery; `None` once settled.
    event: Option<(Submission, u32)>,
}

impl MemoryAck {
    fn give_back(&mut self) {
        let Some((submission, attempt)) = self.event.take() else { return };
        let mut state = self.broker.lock();
        let lane = state.lanes.entry(self.key.clone()).or_default();
        lane.in_flight -= 1;
        lane.waiting.push_back((submission, attempt + 1));
        drop(state);
        self.broker.filled.notify_waiters();
    }
}

#[async_trait]
impl Acknowledge for MemoryAck {
    async fn settle(mut self: Box<Self>, settlement: Settlement) -> bool {
        match settlement {
            Settlement::Done | Settlement::DoneConfirmed => {
                self.event = None;
                let mut state = self.broker.lock();
                state.lanes.entry(self.key.clone()).or_default().in_flight -= 1;
                *state.ended.entry(self.key.0.clone()).or_default() += 1;
            }
            Settlement::Retry(pause, reason) => {
                self.broker.lock().reasons.push(reason);
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                self.give_back();
            }
        }
        true
    }
}

impl Drop for MemoryAck {
    fn drop(&mut self) {
        self.give_back();
    }
}
