//! Deliveries on their way from the pullers to their source.

use std::sync::{Mutex, PoisonError};

use async_nats::Message;
use tokio::sync::mpsc;

use crate::queue::in_flight::InFlightEvent;

/// A delivered message, not decoded yet, with its entry among the events in flight.
pub struct RawDelivery {
    pub message: Message,
    pub in_flight: InFlightEvent,
}

/// Deliveries that a source left in its channel when it was dropped. They are handed back when the last puller has
/// dropped this, because until then a puller of this source could receive them again.
#[derive(Default)]
pub struct UntakenDeliveries(Mutex<Option<mpsc::Receiver<RawDelivery>>>);

impl UntakenDeliveries {
    /// Takes over the channel of a dropped source.
    pub fn take_over(&self, deliveries: Option<mpsc::Receiver<RawDelivery>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = deliveries;
    }
}
