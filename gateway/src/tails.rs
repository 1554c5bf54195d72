//! What all tails of a flow share: one subscription, and each event read and described once.
//!
//! Readers have no queues of their own, only their places in that of the flow: a slow one costs nothing but what it misses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pipeline::{Content, FlowName, Payload, Submission, TransportError};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use tokio::sync::broadcast::{self, Receiver, Sender, WeakSender};
use tokio::sync::mpsc;

use crate::masked;
use crate::state::GatewayState;

/// Events that a reader may be behind; further ones are lost to it.
const WAITING: usize = 64;

/// Longest text shown of an event's content, in bytes.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// An event as people see it, and whose it is.
pub struct Shown {
    pub tenant: Option<Box<str>>,
    pub text: Box<str>,
}

/// The flows that somebody watches.
#[derive(Default)]
pub struct Tails(Mutex<HashMap<FlowName, WeakSender<Arc<Shown>>>>);

impl Tails {
    fn lock(&self) -> MutexGuard<'_, HashMap<FlowName, WeakSender<Arc<Shown>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, flow: &FlowName) -> Option<Receiver<Arc<Shown>>> {
        Some(self.lock().get(flow)?.upgrade()?.subscribe())
    }

    /// Whether nobody watches any more; then the flow is forgotten, and nobody can begin meanwhile.
    fn is_left(&self, flow: &FlowName, sender: &Sender<Arc<Shown>>) -> bool {
        let mut flows = self.lock();
        let left = sender.receiver_count() == 0;
        if left && flows.get(flow).is_some_and(|known| known.upgrade().is_some_and(|known| known.same_channel(sender)))
        {
            flows.remove(flow);
        }
        left
    }
}

/// Listens to a flow from now on, with all others who do.
///
/// # Errors
/// If the broker cannot be reached.
pub async fn listen(state: &GatewayState, flow: &FlowName) -> Result<Receiver<Arc<Shown>>, TransportError> {
    if let Some(joined) = state.tails.join(flow) {
        return Ok(joined);
    }
    let events = state.transport.tail(flow).await?;
    let (sender, receiver) = broadcast::channel(WAITING);
    // Of two who are first at once each has a subscription, and whoever comes later joins one of them.
    state.tails.lock().insert(flow.clone(), sender.downgrade());
    state.tasks.spawn(tell(state.clone(), flow.clone(), events, sender));
    Ok(receiver)
}

async fn tell(state: GatewayState, flow: FlowName, mut events: mpsc::Receiver<Submission>, sender: Sender<Arc<Shown>>) {
    loop {
        tokio::select! {
            event = events.recv() => match event {
                // Nobody may be there for it, which the other branch is told.
                Some(event) => drop(sender.send(Arc::new(shown(&event)))),
                None => return,
            },
            () = sender.closed() => if state.tails.is_left(&flow, &sender) {
                return;
            },
        }
    }
}

fn shown(event: &Submission) -> Shown {
    Shown { tenant: event.envelope.tenant().map(Into::into), text: describe(event).to_string().into() }
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
        "params": masked::params(&envelope.params),
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

/// Short text as it is, anything else by type and length.
fn content_of(content: &Content) -> Value {
    match &content.body {
        pipeline::Body::Inline(bytes) if content.media_type.starts_with("text/") && bytes.len() <= MAX_TEXT_BYTES => {
            Value::from(String::from_utf8_lossy(bytes))
        }
        _ => json!({ "type": &*content.media_type, "length": content.length() }),
    }
}
