//! A durable edge: what a stage emits is stored in the queue of the flow's next part, which may run on another machine.
//!
//! The event there has the id of the child, so that a repeat after a crash is stored once; it keeps request, deadline and
//! parameters. The root here is settled only when every one of its children is stored: acknowledged after the effect, like
//! any other. A full queue is waited for, which holds the places of this part and so pushes back to the client.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Semaphore;

use super::Root;
use super::stage::given_up;
use crate::claims;
use crate::event::{Envelope, Event};
use crate::fault::{Fault, Rejection};
use crate::names::FlowName;
use crate::transport::{Submission, Submitted, Transport, TransportError};

/// Events on their way into the queue at once: enough to hide a round trip behind many.
const UNDER_WAY: usize = 256;

/// Pause before a full queue is tried again, with up to as much again so that not all come back in step.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// See the module.
pub struct Edge {
    transport: Arc<dyn Transport>,
    to: FlowName,
    room: Arc<Semaphore>,
}

impl Edge {
    pub fn new(transport: Arc<dyn Transport>, to: FlowName) -> Self {
        Self { transport, to, room: Arc::new(Semaphore::new(UNDER_WAY)) }
    }

    /// Takes an event over; waits while too many are under way.
    pub async fn send(self: &Arc<Self>, stage: &Arc<str>, event: Event) -> Result<(), Fault> {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(Fault::fatal)?;
        event.root.add();
        let (edge, stage) = (Arc::clone(self), Arc::clone(stage));
        // Ends with its event: what is not stored when the process stops is not acknowledged either.
        let mut event = event;
        tokio::spawn(async move {
            // What is neither handed on nor given back would hold its place for ever.
            let stored = AssertUnwindSafe(edge.store(&mut event)).catch_unwind().await;
            match stored.unwrap_or_else(|_| Err(Gone::Failed(TransportError::unavailable("storing it panicked")))) {
                Ok(()) => event.root.hand_on(),
                Err(Gone::Refused(why)) => event.root.reject(&stage, why),
                Err(Gone::Failed(error)) => event.root.retry(&stage, error.into()),
            }
            event.root.finish();
            drop(room);
        });
        Ok(())
    }

    async fn store(&self, event: &mut Event) -> Result<(), Gone> {
        // In place: an image must not keep its room while the event waits for a full queue.
        event.payload = claims::storable(&*self.transport, &self.to, &event.payload).await.map_err(Gone::Failed)?;
        let stored = self.submit(event).await;
        // After a failure the event may be stored all the same, and then it needs its body.
        if matches!(stored, Ok(Submitted::Known) | Err(Gone::Refused(_))) {
            // Nobody refers to it: an earlier attempt's event has a body of its own.
            claims::drop_all(&*self.transport, &event.payload).await;
        }
        stored.map(|_| ())
    }

    async fn submit(&self, event: &Event) -> Result<Submitted, Gone> {
        let envelope =
            Envelope { id: event.id.clone(), flow: self.to.clone(), attempt: 1, ..(*event.envelope).clone() };
        loop {
            if let Some(why) = given_up(event) {
                return Err(Gone::Refused(why));
            }
            let submission = Submission { envelope: envelope.clone(), payload: event.payload.clone() };
            match self.transport.submit(submission).await {
                Err(TransportError::Full { .. }) => {
                    tokio::time::sleep(FULL_PAUSE.mul_f64(1.0 + rand::random::<f64>())).await;
                }
                other => return other.map_err(Gone::Failed),
            }
        }
    }
}

/// Why an event did not arrive.
enum Gone {
    Refused(Rejection),
    Failed(TransportError),
}

impl Root {
    /// One of its descendants is now an event of the flow's next part, which will answer.
    fn hand_on(&self) {
        self.handed_on.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
