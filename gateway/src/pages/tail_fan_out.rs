//! Fan-out of a flow's events to its tails: one subscription per flow, and each event is rendered once.
//!
//! Readers have no queues of their own, only their positions in the flow's queue: a slow reader costs no memory, it
//! misses events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pipeline::{Content, FlowName, Payload, Submission, Transport, TransportError};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use tokio::sync::broadcast::{self, Receiver, Sender, WeakSender};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::redaction;

/// Events that a reader may lag behind; it misses older ones.
const MAX_LAG: usize = 64;

/// Longest text shown of an event's content, in bytes.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// An event, rendered for display.
pub struct TailEvent {
    /// The tenant that it belongs to.
    pub tenant: Option<Box<str>>,
    /// JSON in one line.
    pub text: Box<str>,
}

type Senders = HashMap<FlowName, WeakSender<Arc<TailEvent>>>;

/// The flows that have tails.
pub struct TailFanOut {
    transport: Arc<dyn Transport>,
    tasks: TaskTracker,
    flows: Mutex<Senders>,
}

impl TailFanOut {
    /// `tasks` runs one task per flow with tails.
    pub fn new(transport: Arc<dyn Transport>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self { transport, tasks, flows: Mutex::default() })
    }

    /// Subscribes to a flow's events from now on.
    ///
    /// # Errors
    /// If the broker cannot be reached.
    pub async fn subscribe(self: &Arc<Self>, flow: &FlowName) -> Result<Receiver<Arc<TailEvent>>, TransportError> {
        if let Some(joined) = self.join(flow) {
            return Ok(joined);
        }
        let events = self.transport.tail(flow).await?;
        let (sender, receiver) = broadcast::channel(MAX_LAG);
        // If two readers are first at the same time, each has a subscription, and later readers join one of them.
        self.lock().insert(flow.clone(), sender.downgrade());
        let this = Arc::clone(self);
        let flow = flow.clone();
        self.tasks.spawn(async move { this.forward(flow, events, sender).await });
        Ok(receiver)
    }

    /// Forwards events until the flow has no readers.
    async fn forward(&self, flow: FlowName, mut events: mpsc::Receiver<Submission>, sender: Sender<Arc<TailEvent>>) {
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    // Without readers this fails, and the other branch ends the loop.
                    Some(event) => drop(sender.send(Arc::new(render(&event)))),
                    None => return,
                },
                () = sender.closed() => if self.is_abandoned(&flow, &sender) {
                    return;
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Senders> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, flow: &FlowName) -> Option<Receiver<Arc<TailEvent>>> {
        Some(self.lock().get(flow)?.upgrade()?.subscribe())
    }

    /// Whether a flow has no readers left. If so, it is removed, under the lock that new readers need.
    fn is_abandoned(&self, flow: &FlowName, sender: &Sender<Arc<TailEvent>>) -> bool {
        let mut flows = self.lock();
        let left = sender.receiver_count() == 0;
        if left && flows.get(flow).is_some_and(|known| known.upgrade().is_some_and(|known| known.same_channel(sender)))
        {
            flows.remove(flow);
        }
        left
    }
}

fn render(event: &Submission) -> TailEvent {
    TailEvent { tenant: event.envelope.tenant().map(Into::into), text: describe(event).to_string().into() }
}

/// One event as JSON.
fn describe(event: &Submission) -> Value {
    let envelope = &event.envelope;
    let mut shown = json!({
        "id": envelope.id,
        "flow": envelope.flow,
        "lane": envelope.lane.as_str(),
        "type": &*envelope.kind,
        "source": &*envelope.source,
        "time": envelope.time.format(&Rfc3339).ok(),
        "request": envelope.request,
        "params": redaction::params(&envelope.params),
    });
    match &event.payload {
        Payload::Json(value) => shown["data"] = (**value).clone(),
        Payload::Bytes(content) => shown["data"] = content_of(content),
        Payload::Parts(parts) => {
            let part = |part: &pipeline::Part| json!({ "name": &*part.name, "data": content_of(&part.content) });
            shown["parts"] = parts.iter().map(part).collect();
        }
        Payload::Image(_) | Payload::Vector(_) => {}
    }
    shown
}

/// Short text as it is, anything else as its type and length.
fn content_of(content: &Content) -> Value {
    match &content.body {
        pipeline::Body::Inline(bytes) if content.media_type.starts_with("text/") && bytes.len() <= MAX_TEXT_BYTES => {
            Value::from(String::from_utf8_lossy(bytes))
        }
        _ => json!({ "type": &*content.media_type, "length": content.length() }),
    }
}
