//! The pull requests that are open at the broker for one consumer, and their subscription.

use std::time::Duration;

use async_nats::{Client, Subscriber};
use pipeline::{BoxError, FlowName, SourceBounds};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::link::connection::{ANSWER_TIMEOUT, Connection};
use crate::link::streams::LanePart;
use crate::queue::pull_room::{Load, PullRoom};
use crate::wire::subjects;

/// How long the broker holds a pull open.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the broker must send a sign of life while a pull is open.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// Faults in a row after which the consumer is created again.
pub const MAX_FAULTS: u32 = 3;

/// The open pulls of one consumer.
pub struct OpenPulls {
    /// What the broker delivers.
    pub messages: Subscriber,
    /// Changes when the connection is established again.
    pub established: watch::Receiver<u64>,
    client: Client,
    inbox: String,
    subject: String,
    room: PullRoom,
    /// When the broker last sent something, or was asked while nothing was requested.
    last_heard: Instant,
    faults: u32,
}

impl OpenPulls {
    /// Subscribes to the answers; requests nothing yet.
    pub async fn open(
        connection: &Connection,
        flow: &FlowName,
        part: &LanePart,
        bounds: SourceBounds,
    ) -> Result<Self, BoxError> {
        let client = connection.client();
        let mut established = connection.established.clone();
        established.mark_unchanged();
        let inbox = client.new_inbox();
        let messages = tokio::time::timeout(ANSWER_TIMEOUT, client.subscribe(inbox.clone())).await??;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", subjects::work_stream(flow), part.consumer());
        Ok(Self {
            messages,
            established,
            client,
            inbox,
            subject,
            room: PullRoom::new(bounds),
            last_heard: Instant::now(),
            faults: 0,
        })
    }

    /// Pulls if there is room for enough events.
    pub async fn pull_if_worthwhile(&mut self, load: Load) -> Result<(), BoxError> {
        let events = self.room.events(load);
        if self.room.is_worth_a_pull(events) { self.pull(events).await } else { Ok(()) }
    }

    /// Pulls as many events as there is room for.
    pub async fn pull_any(&mut self, load: Load) -> Result<(), BoxError> {
        self.pull(self.room.events(load)).await
    }

    async fn pull(&mut self, events: usize) -> Result<(), BoxError> {
        let bytes = self.room.bytes_to_request(events);
        let request = format!(
            r#"{{"batch":{events},"max_bytes":{bytes},"expires":{},"idle_heartbeat":{}}}"#,
            EXPIRES.as_nanos(),
            HEARTBEAT.as_nanos()
        );
        if !self.room.is_anything_requested() {
            self.last_heard = Instant::now();
        }
        let sent = self.client.publish_with_reply(self.subject.clone(), self.inbox.clone(), request.into());
        tokio::time::timeout(ANSWER_TIMEOUT, sent).await??;
        self.room.request(events, bytes);
        Ok(())
    }

    /// Whether there is room, but too little for a pull, and nothing is requested.
    pub fn is_starved(&self, load: Load) -> bool {
        !self.room.is_anything_requested() && self.room.events(load) > 0
    }

    /// Number of events in flight at which there is room for another pull; `None` if no settlement makes room.
    pub fn wake_at(&self, load: Load) -> Option<usize> {
        self.room.wake_at(load)
    }

    /// Notes that the broker sent something.
    pub fn hear(&mut self) {
        self.last_heard = Instant::now();
    }

    /// Notes that an event arrived.
    pub fn arrive(&mut self) {
        self.faults = 0;
        self.room.arrive();
    }

    /// Notes that a pull ended, with the rest of its events or all.
    pub fn expire(&mut self, events: Option<usize>) {
        self.room.expire(events.unwrap_or(usize::MAX));
    }

    /// Whether something is requested and the broker sent nothing for two heartbeats.
    pub fn is_silent(&self) -> bool {
        self.room.is_anything_requested() && self.last_heard.elapsed() > 2 * HEARTBEAT
    }

    /// Notes a sign of life.
    pub fn clear_faults(&mut self) {
        self.faults = 0;
    }

    /// Counts a fault and forgets what was requested. Returns whether there were [`MAX_FAULTS`] in a row.
    pub fn fault(&mut self) -> bool {
        self.faults += 1;
        self.forget();
        self.faults >= MAX_FAULTS
    }

    /// Forgets what was requested, so that it is requested again.
    pub fn forget(&mut self) {
        self.room.forget();
        self.last_heard = Instant::now();
    }
}
