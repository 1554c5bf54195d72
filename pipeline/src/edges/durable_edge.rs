//! A durable edge: what a stage emits is stored in the broker's queue of the flow's next part, which may run on another
//! machine.
//!
//! The stored event has the id of the child, so that a repeat after a crash is stored once; it keeps request, deadline and
//! parameters. The root on this side is settled only when every one of its children is stored: acknowledged after the
//! effect, like any other. If the queue is full or the broker refuses to store, the edge waits, which occupies the places of
//! this part and so pushes back to the client.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Semaphore;

use crate::claims;
use crate::envelope::Envelope;
use crate::event::Event;
use crate::fault::{Fault, Rejection};
use crate::names::FlowName;
use crate::payload::Payload;
use crate::storage_outage::{StorageOutage, StorageWait};
use crate::transport::{Submission, SubmitAck, Transport, TransportError};

/// Events being stored at once: enough to hide a round trip behind many.
const IN_FLIGHT: usize = 256;

/// Pause before a full queue is tried again, with up to as much again so that not all senders retry in step.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// The edge from a stage to the flow's next part, shared by the stage's workers.
pub struct DurableEdge {
    transport: Arc<dyn Transport>,
    /// The next part.
    to: FlowName,
    /// Of the part before the edge.
    storage: Arc<StorageOutage>,
    /// One permit for each event being stored.
    room: Arc<Semaphore>,
}

impl DurableEdge {
    pub fn new(transport: Arc<dyn Transport>, to: FlowName, storage: Arc<StorageOutage>) -> Self {
        Self { transport, to, storage, room: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    /// Takes the event over and stores it in the background; waits only while too many are being stored. Events may be
    /// stored in another order than they were sent.
    pub async fn send(self: &Arc<Self>, stage: &Arc<str>, event: Event) -> Result<(), Fault> {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(Fault::fatal)?;
        event.root.add();
        let (edge, stage) = (Arc::clone(self), Arc::clone(stage));
        let mut event = event;
        // Not tracked: if the process stops first, the event is neither stored nor acknowledged, and is redelivered.
        tokio::spawn(async move {
            // An event that is neither handed on nor given back would hold its place for ever.
            let stored = AssertUnwindSafe(edge.store(&mut event)).catch_unwind().await;
            match stored.unwrap_or_else(|_| Err(StoreError::Failed(TransportError::unavailable("storing it panicked"))))
            {
                Ok(()) => event.root.hand_on(),
                Err(StoreError::Obsolete(why)) => event.root.reject(&stage, why),
                Err(StoreError::Stopped) => event.root.hand_back("the flow ended before the next part had the event"),
                Err(StoreError::Failed(error)) => event.root.retry(&stage, error.into()),
            }
            event.root.finish();
            drop(room);
        });
        Ok(())
    }

    async fn store(&self, event: &mut Event) -> Result<(), StoreError> {
        // In place: an image must not keep its room while the event waits for a full queue.
        event.payload = self.store_body(event).await?;
        let stored = self.submit(event).await;
        // After a failure the event may be stored all the same, and then it needs its body.
        if matches!(stored, Ok(SubmitAck::Duplicate) | Err(StoreError::Obsolete(_))) {
            // Orphaned: an earlier attempt's event has a body of its own.
            claims::drop_all(&*self.transport, &event.payload).await;
        }
        stored.map(|_| ())
    }

    async fn store_body(&self, event: &Event) -> Result<Payload, StoreError> {
        let mut wait = self.storage.begin(1);
        loop {
            if let Some(why) = event.obsolete() {
                return Err(StoreError::Obsolete(why));
            }
            match claims::storable(&*self.transport, &self.to, &event.payload).await {
                Ok(payload) => {
                    wait.end();
                    return Ok(payload);
                }
                Err(error) => pause(&mut wait, error).await?,
            }
        }
    }

    async fn submit(&self, event: &Event) -> Result<SubmitAck, StoreError> {
        let mut wait = self.storage.begin(1);
        let envelope =
            Envelope { id: event.id.clone(), flow: self.to.clone(), attempt: 1, ..(*event.envelope).clone() };
        let mut may_be_stored = false;
        loop {
            if let Some(why) = event.obsolete().filter(|_| !may_be_stored) {
                return Err(StoreError::Obsolete(why));
            }
            let submission = Submission { envelope: envelope.clone(), payload: event.payload.clone() };
            match self.transport.submit(submission).await {
                Err(TransportError::Full { .. }) => {
                    tokio::select! {
                        () = self.storage.stopped() => return Err(StoreError::Stopped),
                        () = tokio::time::sleep(FULL_PAUSE.mul_f64(1.0 + rand::random::<f64>())) => {}
                    }
                }
                Err(error) => {
                    may_be_stored = true;
                    pause(&mut wait, error).await?;
                }
                Ok(submitted) => {
                    wait.end();
                    // What the broker knows may be what an earlier try stored, with this very body.
                    return Ok(if may_be_stored { SubmitAck::Stored } else { submitted });
                }
            }
        }
    }
}

/// Waits before the next try.
async fn pause(wait: &mut StorageWait<'_>, error: TransportError) -> Result<(), StoreError> {
    if !error.will_pass() {
        return Err(StoreError::Failed(error));
    }
    if wait.pause(&error).await { Ok(()) } else { Err(StoreError::Stopped) }
}

/// Why an event was not stored.
enum StoreError {
    /// It was cancelled, or its deadline passed, while the queue was full.
    Obsolete(Rejection),
    /// The flow ended before the broker stored it.
    Stopped,
    /// It cannot be stored, now or later.
    Failed(TransportError),
}
