//! One worker of a stage: take a batch, weed out what is not worth doing, process, settle.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::flow::FlowShared;
use super::image_admission::{Admitted, ImageAdmission};
use super::meter::StageMeter;
use super::outage::Outage;
use super::output::Teller;
use super::{Output, Queue, Sink};
use crate::claims;
use crate::event::Event;
use crate::fault::{BoxError, Fault, Rejection};
use crate::operator::{Batching, Operator};
use crate::payload::wire_form;
use crate::transport::{Transport, TransportError};

/// Makes an operator for a worker, again after a panic.
pub type Build = Arc<dyn Fn() -> Result<Box<dyn Operator>, BoxError> + Send + Sync>;

/// What the workers of one stage share.
pub struct Stage {
    pub name: Arc<str>,
    pub kind: &'static str,
    pub workers: usize,
    pub batching: Batching,
    pub timeout: Duration,
    pub queue: Arc<Queue>,
    pub sink: Sink,
    pub meter: StageMeter,
    /// What the stage depends on, in and out of reach.
    pub outage: Outage,
    /// Room for images that come over a durable edge.
    pub images: ImageAdmission,
    /// The workers at work, so that a drain can wait for the last one.
    pub at_work: TaskTracker,
    pub build: Build,
}

/// A batch of bulk events holds a worker for about this long at most, for an interactive event may come meanwhile.
const BULK_SLICE: Duration = Duration::from_millis(50);

/// Runs until the queue is closed and empty, or the operator is broken.
pub struct Worker {
    pub stage: Arc<Stage>,
    pub flow: Arc<FlowShared>,
    pub transport: Arc<dyn Transport>,
    pub operator: Box<dyn Operator>,
}

impl Worker {
    /// The worker's life.
    ///
    /// # Errors
    /// If the operator is broken; what it held comes again elsewhere.
    pub async fn run(mut self) -> Result<(), BoxError> {
        let stage = Arc::clone(&self.stage);
        let teller = Teller { transport: Arc::clone(&self.transport), flow: self.flow.answers_for.clone() };
        let mut out = Output::new(Arc::clone(&stage.name), stage.sink.clone(), Some(teller));
        while let Some(mut taken) = stage.queue.pop(stage.batching, stage.meter.fitting(BULK_SLICE)).await {
            let batch = std::mem::take(&mut taken.events);
            self.handle(batch, &mut out).await?;
        }
        self.operator.close().await.map_err(|fault| fault.to_string().into())
    }

    async fn handle(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), BoxError> {
        let stage = Arc::clone(&self.stage);
        let begun = Instant::now();
        let size = batch.len();
        out.begin_batch(begun);
        stage.meter.began(size);
        let settled = self.handle_in_parts(batch, out).await;
        let failed = out.take_failed();
        let took = begun.elapsed();
        stage.meter.ended(size, failed, took, out.take_blocked());
        settled
    }

    /// Brings payloads into memory and processes them, as much of a batch at a time as there is room for its images.
    async fn handle_in_parts(&mut self, mut batch: Vec<Event>, out: &mut Output) -> Result<(), BoxError> {
        let stage = Arc::clone(&self.stage);
        let is_in_memory = |event: &Event| !event.payload.needs_fetch() && !wire_form::is_encoded(&event.payload);
        if batch.iter().all(is_in_memory) {
            return self.attempt_all(batch, out).await;
        }
        while !batch.is_empty() {
            batch.retain(|event| still_wanted(event, out));
            let admitted = stage.images.admit(&mut batch).await;
            let worth_doing = fetch(&stage, &*self.transport, admitted, out).await;
            self.attempt_all(worth_doing, out).await?;
        }
        Ok(())
    }

    /// Processes a batch; if it fails, its events one at a time, so that a bad one is found and the others are done.
    async fn attempt_all(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), BoxError> {
        let (batch, fault) = match self.attempt_through_outage(batch, out).await {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        if batch.len() == 1 || matches!(fault, Fault::Fatal(_)) {
            return self.give_back(&batch, fault, out);
        }
        tracing::warn!(flow = %self.flow.name, stage = %self.stage.name, events = batch.len(), error = %chain(&fault),
            "batch failed, its events are tried one at a time");
        for event in batch {
            if let Err((event, fault)) = self.attempt_through_outage(vec![event], out).await {
                self.give_back(&event, fault, out)?;
            }
        }
        Ok(())
    }

    /// One attempt, and another whenever what the stage depends on was out of reach, for as long as the policy says.
    /// Done events are finished here; what failed comes back with its fault.
    async fn attempt_through_outage(
        &mut self,
        mut batch: Vec<Event>,
        out: &mut Output,
    ) -> Result<(), (Vec<Event>, Fault)> {
        let stage = Arc::clone(&self.stage);
        let mut wait = stage.outage.begin(Duration::from_millis(self.flow.retry.outage_ms));
        loop {
            batch.retain(|event| still_wanted(event, out));
            if batch.is_empty() {
                return Ok(());
            }
            match self.attempt(batch.clone(), out).await {
                Ok(()) => {
                    batch.iter().for_each(|event| out.finish(event));
                    return Ok(());
                }
                Err(Fault::Unavailable(error)) => {
                    let goes_on = !stage.queue.is_closed() && wait.pause(&self.flow.name, &stage.name, &error).await;
                    if !goes_on {
                        return Err((batch, Fault::Retry(error)));
                    }
                }
                Err(fault) => return Err((batch, fault)),
            }
        }
    }

    /// Marks events for another attempt; a fatal fault stops the worker as well.
    fn give_back(&self, events: &[Event], fault: Fault, out: &mut Output) -> Result<(), BoxError> {
        let why = chain(&fault);
        tracing::warn!(flow = %self.flow.name, stage = %self.stage.name, events = events.len(), error = why, "failed");
        for event in events {
            out.hand_back(event);
            event.root.retry(&self.stage.name, why.clone().into());
            out.finish(event);
        }
        match fault {
            Fault::Retry(_) | Fault::Unavailable(_) => Ok(()),
            Fault::Fatal(error) => Err(error),
        }
    }

    /// One call of the operator, bounded in time, a panic turned into a fault.
    async fn attempt(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        let timeout = self.stage.timeout;
        out.begin_attempt();
        let work = AssertUnwindSafe(self.operator.process(batch, out)).catch_unwind();
        match tokio::time::timeout(timeout, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                self.flow.panics.fetch_add(1, Ordering::Relaxed);
                // Its state may be torn: go on with a fresh instance.
                self.operator = (self.stage.build)().map_err(Fault::Fatal)?;
                Err(Fault::retry(format!("panicked: {}", panic_text(&*panic))))
            }
            Err(_) => Err(Fault::retry(format!("took longer than timeout_ms = {}", timeout.as_millis()))),
        }
    }
}

/// Brings the payloads of admitted events into memory; settles the events whose payload cannot be had.
async fn fetch(stage: &Stage, transport: &dyn Transport, admitted: Vec<Admitted>, out: &mut Output) -> Vec<Event> {
    let mut fetches = Vec::with_capacity(admitted.len());
    for (mut event, room) in admitted {
        match room {
            Ok(room) => fetches.push(async move {
                let result = claims::resolve(transport, &mut event.payload, room).await;
                (event, result)
            }),
            Err(why) => {
                out.reject(&event, why);
                event.root.finish();
            }
        }
    }
    let mut ready = Vec::new();
    for (event, result) in join_all(fetches).await {
        match result {
            Ok(()) => {
                ready.push(event);
                continue;
            }
            Err(error @ TransportError::Claim { .. }) => {
                tracing::error!(event = %event.id, %error, "payload lost");
                out.reject(&event, Rejection::new(500, "payload_lost", "the stored payload is gone or was altered"));
            }
            Err(error) => {
                out.hand_back(&event);
                event.root.retry(&stage.name, error.into());
            }
        }
        event.root.finish();
    }
    ready
}

/// Whether an event is still worth doing; one that is not ends here.
fn still_wanted(event: &Event, out: &mut Output) -> bool {
    let Some(why) = given_up(event) else { return true };
    out.reject(event, why);
    event.root.finish();
    false
}

/// Why an event is not worth doing any more.
pub fn given_up(event: &Event) -> Option<Rejection> {
    if event.is_cancelled() {
        return Some(Rejection::new(409, "cancelled", "the request was cancelled before it was done"));
    }
    let late = || Rejection::new(504, "deadline_passed", "the deadline passed before the work began");
    event.envelope.expired().then(late)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
