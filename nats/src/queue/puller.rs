//! Pulls one lane of one flow, or one partition of it, and reports progress for the events in flight.
//!
//! A pull requests exactly as many events and bytes as the source has room for; the next follows when a quarter of the
//! bound is free, or after 1 ms if nothing is requested. So the sum of requested, waiting and unsettled events never
//! exceeds the source's bound, other processes get the events for which this one has no room, and no event waits in a
//! buffer where its `ack_wait` runs out unnoticed (the client library's own stream of pulls buffers up to 1.5 batches).
//!
//! | what happens | what is done |
//! | --- | --- |
//! | the connection is established again | open pulls are forgotten and requested again |
//! | status 408, or 409 with a rest | the rest is no longer requested |
//! | no message for two heartbeats | requested again; three times in a row: consumer created again |
//! | no responders | requested again after a pause; three times in a row: consumer created again |
//! | consumer deleted, request refused | stream and consumer are created again |

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode};
use futures_util::{FutureExt, StreamExt};
use pipeline::{BoxError, SourceBounds};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::link::broker::Broker;
use crate::link::connection::ANSWER_TIMEOUT;
use crate::link::ensure;
use crate::link::flow::DeclaredFlow;
use crate::link::streams::{self, LanePart};
use crate::queue::deliveries::{RawDelivery, UntakenDeliveries};
use crate::queue::in_flight::InFlight;
use crate::queue::pulls::{HEARTBEAT, MAX_FAULTS, OpenPulls};
use crate::wire::headers;

/// How long to wait for more room if there is too little for a pull and nothing is requested: a pull costs the broker
/// as much as ten events.
const LINGER: Duration = Duration::from_millis(1);
/// How long ending a subscription may take; it takes longer only if the connection is down.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause after a fault, doubled up to 64 times while creating the consumer again fails.
const PAUSE: Duration = Duration::from_millis(50);

/// The task that pulls for one consumer.
pub struct Puller {
    pub broker: Arc<Broker>,
    pub flow: Arc<DeclaredFlow>,
    pub part: LanePart,
    pub bounds: SourceBounds,
    pub in_flight: Arc<InFlight>,
    /// Has room for twice the bound, so that sending never waits.
    pub deliveries: mpsc::Sender<RawDelivery>,
}

/// What a puller waits for besides messages.
struct Signals {
    /// When to report progress.
    progress: Interval,
    /// Cancelled when the source is dropped.
    closed: CancellationToken,
}

/// Why pulling stopped.
enum PullEnd {
    /// The source was dropped, or the transport is closed.
    Closed,
    /// The consumer must be created again.
    Lost(String),
}

impl Puller {
    /// Runs until the source is dropped and all its events are settled, or the transport is closed.
    pub async fn run(self, closed: CancellationToken, untaken: Arc<UntakenDeliveries>) {
        // An event is reported at its second tick, so half of `ack_wait` is left for delays.
        let mut progress = tokio::time::interval((self.bounds.ack_wait / 4).max(Duration::from_millis(1)));
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut signals = Signals { progress, closed };
        loop {
            match self.pull(&mut signals).await {
                PullEnd::Closed => break,
                PullEnd::Lost(why) => {
                    let (flow, consumer) = (&self.flow.name, self.part.consumer());
                    tracing::warn!(%flow, consumer, why, "pulling stopped, creating the consumer again");
                }
            }
            if !self.create_again(&mut signals).await {
                break;
            }
        }
        // Hands the untaken deliveries back if this is the last puller of the source. Earlier, the broker could deliver
        // them here again.
        drop(untaken);
        self.wait_for_settlements(&mut signals.progress).await;
    }

    async fn pull(&self, signals: &mut Signals) -> PullEnd {
        let opened = OpenPulls::open(&self.broker.work, &self.flow.name, &self.part, self.bounds).await;
        let mut pulls = match opened {
            Ok(pulls) => pulls,
            Err(error) => return PullEnd::Lost(error.to_string()),
        };
        let end = self.pull_from(&mut pulls, signals).await;
        // The broker must know that nothing is pulled any more before events are handed back, or it would deliver them
        // here again. Messages that it sent before are passed on, or handed back.
        let drain = async {
            pulls.messages.drain().await?;
            while let Some(message) = pulls.messages.next().await {
                if message.status.is_none() {
                    self.pass_on(message);
                }
            }
            Ok::<_, BoxError>(())
        };
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain).await;
        end
    }

    async fn pull_from(&self, pulls: &mut OpenPulls, signals: &mut Signals) -> PullEnd {
        let mut alive = tokio::time::interval(HEARTBEAT);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(error) = pulls.pull_if_worthwhile(self.in_flight.load()).await {
                return PullEnd::Lost(error.to_string());
            }
            let load = self.in_flight.load();
            let (wake_at, starved) = (pulls.wake_at(load), pulls.is_starved(load));
            tokio::select! {
                // Closing has priority: a pull after it would take events away from other processes.
                biased;
                () = signals.closed.cancelled() => return PullEnd::Closed,
                () = self.broker.stop.cancelled() => return PullEnd::Closed,
                _ = signals.progress.tick() => self.in_flight.report_progress().await,
                _ = alive.tick() => if pulls.is_silent() && pulls.fault() {
                    return PullEnd::Lost(format!("no heartbeat from the broker {MAX_FAULTS} times"));
                },
                _ = pulls.established.changed() => pulls.forget(),
                message = pulls.messages.next() => match message {
                    Some(message) => if let Some(end) = self.take_all(pulls, message).await {
                        return end;
                    },
                    None => return PullEnd::Lost("the subscription ended".into()),
                },
                () = self.in_flight.wait_until_at_most(wake_at) => {}
                () = tokio::time::sleep(LINGER), if starved => {
                    if let Err(error) = pulls.pull_any(self.in_flight.load()).await {
                        return PullEnd::Lost(error.to_string());
                    }
                }
            }
        }
    }

    /// Takes a message and all others that have arrived already.
    async fn take_all(&self, pulls: &mut OpenPulls, first: Message) -> Option<PullEnd> {
        pulls.hear();
        let mut next = Some(first);
        while let Some(message) = next {
            if message.status.is_none() {
                pulls.arrive();
                self.pass_on(message);
            } else if let Some(end) = self.take_status(pulls, &message).await {
                return Some(end);
            }
            next = pulls.messages.next().now_or_never().flatten();
        }
        None
    }

    fn pass_on(&self, message: Message) {
        let Some(reply) = message.reply.clone() else { return };
        let Some(in_flight) = self.in_flight.add(reply, message.length) else {
            metrics::counter!("caudal_redeliveries_in_flight_total").increment(1);
            return;
        };
        // More than requested can only arrive after pulls were forgotten. What does not fit is dropped, so handed back.
        let _ = self.deliveries.try_send(RawDelivery { message, in_flight });
    }

    /// Does what a status message requires.
    async fn take_status(&self, pulls: &mut OpenPulls, message: &Message) -> Option<PullEnd> {
        let description = message.description.as_deref().unwrap_or_default();
        match message.status {
            Some(StatusCode::IDLE_HEARTBEAT) => pulls.clear_faults(),
            Some(StatusCode::NO_RESPONDERS) => {
                if pulls.fault() {
                    return Some(PullEnd::Lost("no server answers pulls".into()));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Some(_) if description == "Consumer Deleted" || description.starts_with("Consumer is push") => {
                return Some(PullEnd::Lost(description.to_lowercase()));
            }
            Some(_) if description.starts_with("Exceeded") || description.starts_with("Bad Request") => {
                return Some(PullEnd::Lost(format!("the broker refuses pulls: {description}")));
            }
            Some(_) => {
                let headers = message.headers.as_ref();
                pulls.expire(headers.and_then(|all| headers::get(all, "Nats-Pending-Messages")?.parse().ok()));
            }
            None => {}
        }
        None
    }

    /// Creates stream and consumer again, until that succeeds; `false` if the source was closed meanwhile.
    async fn create_again(&self, signals: &mut Signals) -> bool {
        let mut failures = 0;
        loop {
            if !self.pause(signals, PAUSE * (1 << failures.min(6))).await {
                return false;
            }
            match tokio::time::timeout(3 * ANSWER_TIMEOUT, self.ensure()).await {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => {
                    tracing::warn!(flow = %self.flow.name, %error, "the queue cannot be created, trying again");
                }
                Err(_) => tracing::warn!(flow = %self.flow.name, "creating the queue timed out, trying again"),
            }
            failures += 1;
        }
    }

    /// Waits and reports progress; `false` if the source was closed meanwhile.
    async fn pause(&self, signals: &mut Signals, time: Duration) -> bool {
        let pause = tokio::time::sleep(time);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return true,
                _ = signals.progress.tick() => self.in_flight.report_progress().await,
                () = signals.closed.cancelled() => return false,
                () = self.broker.stop.cancelled() => return false,
            }
        }
    }

    async fn ensure(&self) -> Result<(), BoxError> {
        let context = &self.broker.work.context;
        ensure::ensure_flow(context, &self.flow.topology, &self.broker.limits).await?;
        streams::ensure_consumer(context, &self.flow.topology, &self.part, self.bounds.ack_wait).await
    }

    /// Reports progress for the events that are still at work after the source was dropped.
    async fn wait_for_settlements(&self, progress: &mut Interval) {
        loop {
            tokio::select! {
                () = self.in_flight.wait_until_at_most(Some(0)) => return,
                () = self.broker.stop.cancelled() => return,
                _ = progress.tick() => self.in_flight.report_progress().await,
            }
        }
    }
}
