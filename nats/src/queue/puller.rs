//! Pulls one lane of one flow, or one partition of it: asks for exactly what there is room for, in events and in bytes, and
//! keeps alive what came.
//!
//! A pull asks for as many events as the source may still hold; the next follows when a quarter of that is free, or after
//! 1 ms if the broker owes nothing. So the sum of
//! asked, waiting and unsettled events never exceeds the source's bound, other processes get what this one has no room
//! for, and no event waits in a buffer where its clock runs unseen (the client library's own stream of pulls holds up
//! to 1.5 batches there).
//!
//! | what comes | what is done |
//! | --- | --- |
//! | the connection was made again | outstanding pulls are forgotten and asked for anew |
//! | 408, 409 with a rest | the rest is no longer outstanding |
//! | no sign of life for two heartbeats | asked for anew; three times in a row: consumer made again |
//! | no responders | asked for anew after a pause; three times in a row: consumer made again |
//! | consumer deleted, request refused | stream and consumer are made again |

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::{FutureExt, StreamExt};
use pipeline::{BoxError, SourceBounds};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::codec;
use crate::connection::ANSWER_LIMIT;
use crate::held::{Held, Hold};
use crate::jetstream::{Flow, Inner};
use crate::names;
use crate::topology::{self, LaneCut};

/// How long the broker holds a pull open.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the broker must show that a pull is alive.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Bytes one pull must be able to bring: more than the largest message, or that message would never come.
const LEAST_BYTES: usize = 2 << 20;
const _: () = assert!(LEAST_BYTES > codec::MAX_MESSAGE + (64 << 10));
/// Faults in a row after which the consumer is made again.
const PATIENCE: u32 = 3;
/// How long small room may wait for more, when nothing is outstanding: a pull costs the broker as much as ten events.
const LINGER: Duration = Duration::from_millis(1);
/// How long the end of a subscription may take; longer only if the connection is down.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// Pause after a fault, doubled up to 64 times while remaking the consumer fails.
const PAUSE: Duration = Duration::from_millis(50);

/// A delivered message and the hold on it.
pub struct Raw {
    pub message: Message,
    pub hold: Hold,
}

/// See the module.
pub struct Pump {
    pub inner: Arc<Inner>,
    pub flow: Arc<Flow>,
    pub cut: LaneCut,
    pub bounds: SourceBounds,
    pub held: Arc<Held>,
    /// Has room for twice the bound, so that it is never waited for.
    pub feed: mpsc::Sender<Raw>,
}

/// What a source leaves behind when it is dropped: events that nobody took. They are handed back when the last pump has
/// let go of it.
#[derive(Default)]
pub struct Leftover(Mutex<Option<mpsc::Receiver<Raw>>>);

impl Leftover {
    /// Keeps what is left.
    pub fn leave(&self, deliveries: Option<mpsc::Receiver<Raw>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = deliveries;
    }
}

/// What a pump hears beside messages.
struct Signals {
    /// When to report progress.
    progress: Interval,
    /// Cancelled when the source is dropped.
    closed: CancellationToken,
}

/// Why pulling stopped.
enum Ended {
    /// The source was dropped, or the transport is closed.
    Closed,
    /// The consumer must be made again.
    Lost(String),
}

impl Pump {
    /// Runs until the source is dropped and everything it held is settled, or the transport is closed.
    pub async fn run(self, closed: CancellationToken, leftover: Arc<Leftover>) {
        let mut progress = tokio::time::interval((self.bounds.ack_wait / 3).max(Duration::from_millis(1)));
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut signals = Signals { progress, closed };
        loop {
            match self.pull(&mut signals).await {
                Ended::Closed => break,
                Ended::Lost(why) => {
                    tracing::warn!(flow = %self.flow.name, consumer = self.cut.consumer(), why, "pull is made again");
                }
            }
            if !self.remake(&mut signals).await {
                break;
            }
        }
        // Handed back with the last pump of the source, and only now.
        drop(leftover);
        self.linger(&mut signals.progress).await;
    }

    async fn pull(&self, signals: &mut Signals) -> Ended {
        let mut pull = match Pull::open(self).await {
            Ok(pull) => pull,
            Err(error) => return Ended::Lost(error.to_string()),
        };
        let ended = self.pull_from(&mut pull, signals).await;
        // The broker must know that nobody pulls before it hears what is handed back, or it would come here again. What it
        // sent before is handed on, or back.
        let drain = async {
            pull.messages.drain().await?;
            while let Some(message) = pull.messages.next().await {
                if message.status.is_none() {
                    self.pass_on(message);
                }
            }
            Ok::<_, BoxError>(())
        };
        let _ = tokio::time::timeout(DRAIN_LIMIT, drain).await;
        ended
    }

    async fn pull_from(&self, pull: &mut Pull, signals: &mut Signals) -> Ended {
        let mut alive = tokio::time::interval(HEARTBEAT);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = pull.room(self);
            if room >= least(self.bounds.events)
                && let Err(error) = pull.ask(self, room).await
            {
                return Ended::Lost(error.to_string());
            }
            let wake_at = pull.wake_at(self);
            let starved = pull.outstanding == 0 && room > 0;
            tokio::select! {
                // Closing comes first: a pull after it would take events away from others.
                biased;
                () = signals.closed.cancelled() => return Ended::Closed,
                () = self.inner.stop.cancelled() => return Ended::Closed,
                _ = signals.progress.tick() => self.held.report_progress().await,
                _ = alive.tick() => if pull.is_silent() && pull.fault() {
                    return Ended::Lost(format!("no sign of life from the broker {PATIENCE} times"));
                },
                _ = pull.up.changed() => pull.forget(),
                message = pull.messages.next() => match message {
                    Some(message) => if let Some(ended) = self.take_all(pull, message).await {
                        return ended;
                    },
                    None => return Ended::Lost("the subscription ended".into()),
                },
                () = self.held.freed(wake_at) => {}
                () = tokio::time::sleep(LINGER), if starved => {
                    if let Err(error) = pull.ask(self, pull.room(self)).await {
                        return Ended::Lost(error.to_string());
                    }
                }
            }
        }
    }

    /// Takes a message and whatever else has arrived with it.
    async fn take_all(&self, pull: &mut Pull, first: Message) -> Option<Ended> {
        pull.heard = Instant::now();
        let mut next = Some(first);
        while let Some(message) = next {
            if message.status.is_none() {
                pull.faults = 0;
                pull.outstanding_bytes -= pull.outstanding_bytes / pull.outstanding.max(1);
                pull.outstanding = pull.outstanding.saturating_sub(1);
                self.pass_on(message);
            } else if let Some(ended) = self.heed(pull, &message).await {
                return Some(ended);
            }
            next = pull.messages.next().now_or_never().flatten();
        }
        None
    }

    fn pass_on(&self, message: Message) {
        let Some(reply) = message.reply.clone() else { return };
        let hold = self.held.add(reply, message.length);
        // More than was asked for can only come after pulls were forgotten; it is handed back by being dropped.
        let _ = self.feed.try_send(Raw { message, hold });
    }

    /// Does what a status message asks for.
    async fn heed(&self, pull: &mut Pull, message: &Message) -> Option<Ended> {
        let description = message.description.as_deref().unwrap_or_default();
        match message.status {
            Some(StatusCode::IDLE_HEARTBEAT) => pull.faults = 0,
            Some(StatusCode::NO_RESPONDERS) => {
                if pull.fault() {
                    return Some(Ended::Lost("nobody answers pulls".into()));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Some(_) if description == "Consumer Deleted" || description.starts_with("Consumer is push") => {
                return Some(Ended::Lost(description.to_lowercase()));
            }
            Some(_) if description.starts_with("Exceeded") || description.starts_with("Bad Request") => {
                return Some(Ended::Lost(format!("the broker refuses pulls: {description}")));
            }
            Some(_) => {
                let headers = message.headers.as_ref();
                let rest = headers.and_then(|headers| codec::get(headers, "Nats-Pending-Messages")?.parse().ok());
                pull.outstanding = pull.outstanding.saturating_sub(rest.unwrap_or(usize::MAX));
            }
            None => {}
        }
        None
    }

    /// Makes stream and consumer again until that works; `false` if the source was closed meanwhile.
    async fn remake(&self, signals: &mut Signals) -> bool {
        let mut failures = 0;
        loop {
            let pause = tokio::time::sleep(PAUSE * (1 << failures.min(6)));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    _ = signals.progress.tick() => self.held.report_progress().await,
                    () = signals.closed.cancelled() => return false,
                    () = self.inner.stop.cancelled() => return false,
                }
            }
            match tokio::time::timeout(3 * ANSWER_LIMIT, self.ensure()).await {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => {
                    tracing::warn!(flow = %self.flow.name, %error, "the queue cannot be made again, will try again");
                }
                Err(_) => tracing::warn!(flow = %self.flow.name, "the queue cannot be made again in time"),
            }
            failures += 1;
        }
    }

    async fn ensure(&self) -> Result<(), BoxError> {
        let context = &self.inner.work.context;
        topology::ensure_flow(context, &self.flow.declared, &self.inner.limits).await?;
        topology::ensure_consumer(context, &self.flow.declared, &self.cut, self.bounds.ack_wait).await
    }

    /// Keeps alive what is still at work after the source was dropped.
    async fn linger(&self, progress: &mut Interval) {
        loop {
            tokio::select! {
                () = self.held.freed(Some(0)) => return,
                () = self.inner.stop.cancelled() => return,
                _ = progress.tick() => self.held.report_progress().await,
            }
        }
    }
}

/// The state of the pulls that are open at the broker.
struct Pull {
    messages: Subscriber,
    inbox: String,
    subject: String,
    up: watch::Receiver<u64>,
    /// Events asked for that have not come.
    outstanding: usize,
    /// Most bytes that these may have.
    outstanding_bytes: usize,
    /// When the broker was last heard of, or asked.
    heard: Instant,
    faults: u32,
}

impl Pull {
    async fn open(pump: &Pump) -> Result<Self, BoxError> {
        let client = pump.inner.work.client();
        let mut up = pump.inner.work.up.clone();
        up.mark_unchanged();
        let inbox = client.new_inbox();
        let messages = tokio::time::timeout(ANSWER_LIMIT, client.subscribe(inbox.clone())).await??;
        let subject =
            format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", names::work_stream(&pump.flow.name), pump.cut.consumer());
        Ok(Self {
            messages,
            inbox,
            subject,
            up,
            outstanding: 0,
            outstanding_bytes: 0,
            heard: Instant::now(),
            faults: 0,
        })
    }

    /// Events that are neither held nor asked for; none while the bytes that are left could not take the longest.
    fn room(&self, pump: &Pump) -> usize {
        if self.room_bytes(pump) < LEAST_BYTES && (pump.held.len() > 0 || self.outstanding > 0) {
            return 0;
        }
        pump.bounds.events.saturating_sub(pump.held.len()).saturating_sub(self.outstanding)
    }

    /// Bytes that are neither held nor asked for.
    fn room_bytes(&self, pump: &Pump) -> usize {
        let asked = if self.outstanding > 0 { self.outstanding_bytes } else { 0 };
        pump.bounds.bytes.saturating_sub(pump.held.bytes()).saturating_sub(asked)
    }

    /// Asks for `room` events.
    async fn ask(&mut self, pump: &Pump, room: usize) -> Result<(), BoxError> {
        // Half of the share: an older pull may still bring what it was promised in other sizes than these.
        let share = pump.bounds.bytes / 2 / pump.bounds.events * room;
        let bytes = share.max(LEAST_BYTES);
        let request = format!(
            r#"{{"batch":{room},"max_bytes":{bytes},"expires":{},"idle_heartbeat":{}}}"#,
            EXPIRES.as_nanos(),
            HEARTBEAT.as_nanos()
        );
        if self.outstanding == 0 {
            self.heard = Instant::now();
            self.outstanding_bytes = 0;
        }
        let client = pump.inner.work.client();
        let sent = client.publish_with_reply(self.subject.clone(), self.inbox.clone(), request.into());
        tokio::time::timeout(ANSWER_LIMIT, sent).await??;
        self.outstanding += room;
        self.outstanding_bytes += bytes;
        Ok(())
    }

    /// The number of held events at which there is room for another pull; `None` while there is nothing to wait for.
    fn wake_at(&self, pump: &Pump) -> Option<usize> {
        if self.room_bytes(pump) < LEAST_BYTES {
            return pump.held.len().checked_sub(1);
        }
        pump.bounds.events.checked_sub(self.outstanding + least(pump.bounds.events))
    }

    fn is_silent(&self) -> bool {
        self.outstanding > 0 && self.heard.elapsed() > 2 * HEARTBEAT
    }

    /// Counts a fault and forgets what was asked for; whether there were too many.
    fn fault(&mut self) -> bool {
        self.faults += 1;
        self.forget();
        self.faults >= PATIENCE
    }

    fn forget(&mut self) {
        self.outstanding = 0;
        self.heard = Instant::now();
    }
}

/// Room that is worth a pull of its own.
fn least(most: usize) -> usize {
    (most / 4).max(1)
}
