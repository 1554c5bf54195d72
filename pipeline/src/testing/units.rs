//! For unit tests inside this crate: events without a broker, and what became of them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::engine::FlowShared;
use crate::envelope::{Envelope, Lane};
use crate::event::{Cancellations, Event, Place, Root};
use crate::names::{FlowName, Token};
use crate::payload::{Content, Payload};
use crate::registry::Services;
use crate::spec::{ByteSize, FlowSettings, FlowSpec};
use crate::transport::{Acknowledge, Delivery, Settlement};

/// Roots that a test may have unsettled.
const ROOM: usize = 1024;

/// Makes events, and receives their roots once they are settled, as a settler would.
pub struct Roots {
    settler: mpsc::Sender<Arc<Root>>,
    pub finished: mpsc::Receiver<Arc<Root>>,
    /// How events were acknowledged, in order, by their ids.
    pub acks: Arc<Mutex<Vec<(Token, Settlement)>>>,
    pub cancellations: Cancellations,
}

impl Roots {
    pub fn new() -> Self {
        let (settler, finished) = mpsc::channel(ROOM);
        Self { settler, finished, acks: Arc::default(), cancellations: Cancellations::default() }
    }

    /// An event without a request.
    pub fn event(&self, id: &str, lane: Lane, body: &str) -> Event {
        self.begin(envelope(id, lane), body)
    }

    /// An event with a request of the same id.
    pub fn request(&self, id: &str, lane: Lane, body: &str) -> Event {
        self.begin(Envelope { request: Some(token(id)), ..envelope(id, lane) }, body)
    }

    pub fn begin(&self, envelope: Envelope, body: &str) -> Event {
        self.begin_in(Place::default(), envelope, body)
    }

    pub fn begin_in(&self, place: Place, envelope: Envelope, body: &str) -> Event {
        let payload = Payload::Bytes(Content::inline("text/plain", body.to_owned()));
        let ack = Box::new(Ack { id: envelope.id.clone(), acks: Arc::clone(&self.acks) });
        let delivery = Delivery { envelope, payload, ack };
        Event::begin(delivery, place, self.settler.clone(), &self.cancellations)
    }

    /// Hands out the finished roots; no event can be made afterwards.
    pub fn close(&mut self) -> mpsc::Receiver<Arc<Root>> {
        let (settler, finished) = mpsc::channel(1);
        self.settler = settler;
        std::mem::replace(&mut self.finished, finished)
    }

    /// The ids of the roots that are settled by now, in order.
    pub fn take_finished(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.finished.try_recv().ok()).map(|root| root.envelope.id.to_string()).collect()
    }
}

/// The shared state of a flow `test` with default settings, whose requesters wait for answers.
pub fn flow_shared(services: &Services) -> FlowShared {
    let spec = FlowSpec {
        name: token("test"),
        whole: token("test"),
        next: None,
        answers: false,
        is_awaited: true,
        delivery_bytes: ByteSize::mib(1),
        settings: FlowSettings::default(),
        stages: Vec::new(),
    };
    FlowShared::new(&spec, services).expect("no follow-ups")
}

struct Ack {
    id: Token,
    acks: Arc<Mutex<Vec<(Token, Settlement)>>>,
}

#[async_trait]
impl Acknowledge for Ack {
    async fn settle(self: Box<Self>, settlement: Settlement) -> bool {
        self.acks.lock().unwrap().push((self.id.clone(), settlement));
        true
    }
}

pub fn token(text: &str) -> Token {
    Token::new(text).unwrap()
}

pub fn envelope(id: &str, lane: Lane) -> Envelope {
    Envelope { lane, ..Envelope::new(FlowName::new("test").unwrap(), token(id)) }
}

/// The ids of events, in order.
pub fn ids<'e>(events: impl IntoIterator<Item = &'e Event>) -> Vec<&'e str> {
    events.into_iter().map(|event| event.id.as_str()).collect()
}
