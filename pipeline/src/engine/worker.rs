//! One worker of a stage: takes a batch, drops obsolete events, processes the rest, settles.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::flow_shared::FlowShared;
use super::image_admission::Admitted;
use super::stage::Stage;
use crate::claims;
use crate::edges::{BULK_SLICE, BatchLimits, Output, ProgressReporter};
use crate::event::Event;
use crate::fault::{BoxError, Fault, Rejection};
use crate::operator::Operator;
use crate::payload::wire_form;
use crate::transport::{Transport, TransportError};

/// One worker. It runs until the queue is closed and empty, or the operator is broken.
pub struct Worker {
    pub stage: Arc<Stage>,
    pub flow: Arc<FlowShared>,
    pub transport: Arc<dyn Transport>,
    /// This worker's own instance; replaced after a panic.
    pub operator: Box<dyn Operator>,
}

impl Worker {
    /// Works on one batch after another, in the order in which the queue gives them.
    ///
    /// # Errors
    /// If the operator is broken; the events it held are redelivered.
    pub async fn run(mut self) -> Result<(), BoxError> {
        let stage = Arc::clone(&self.stage);
        let progress = ProgressReporter { transport: Arc::clone(&self.transport), flow: self.flow.answers_for.clone() };
        let mut out = Output::new(Arc::clone(&stage.name), stage.downstream.clone(), Some(progress));
        while let Some(mut batch) = stage.queue.recv(self.batch_limits()).await {
            let events = std::mem::take(&mut batch.events);
            self.handle(events, &mut out).await?;
            // The batch is dropped only now: the lane policy counts bulk work until it is done.
            drop(batch);
        }
        self.operator.close().await.map_err(|fault| fault.to_string().into())
    }

    fn batch_limits(&self) -> BatchLimits {
        let (batching, metrics) = (self.stage.batching, &self.stage.metrics);
        BatchLimits { events: batching.events, bulk_events: metrics.fitting(BULK_SLICE), linger: batching.linger }
    }

    async fn handle(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), BoxError> {
        let stage = Arc::clone(&self.stage);
        let begun = Instant::now();
        let size = batch.len();
        out.begin_batch(begun);
        stage.metrics.begin_batch(size);
        let settled = self.handle_in_parts(batch, out).await;
        let failed = out.take_failed();
        let took = begun.elapsed();
        stage.metrics.end_batch(size, failed, took, out.take_blocked());
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
            batch.retain(|event| retain_or_settle(event, out));
            let admitted = stage.images.admit(&mut batch).await;
            let fetched = fetch(&stage, &*self.transport, admitted, out).await;
            self.attempt_all(fetched, out).await?;
        }
        Ok(())
    }

    /// Processes a batch; if it fails, its events one at a time, so that a bad one is found and the others are done. Every
    /// event is settled when this returns.
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

    /// One attempt, and another whenever the dependency was out of reach, for as long as the retry policy says. Done events
    /// are settled here; a batch that failed is returned with its fault.
    async fn attempt_through_outage(
        &mut self,
        mut batch: Vec<Event>,
        out: &mut Output,
    ) -> Result<(), (Vec<Event>, Fault)> {
        let stage = Arc::clone(&self.stage);
        let mut wait = stage.outage.begin(Duration::from_millis(self.flow.retry.outage_ms));
        loop {
            batch.retain(|event| retain_or_settle(event, out));
            if batch.is_empty() {
                return Ok(());
            }
            match self.attempt(batch.clone(), out).await {
                Ok(()) => {
                    wait.succeed();
                    batch.iter().for_each(|event| out.finish(event));
                    return Ok(());
                }
                Err(Fault::Unavailable(error)) => {
                    // A drain does not wait for an outage: the events are redelivered to another process.
                    let goes_on = !stage.queue.is_closed() && wait.pause(&error).await;
                    if !goes_on {
                        return Err((batch, Fault::Retry(error)));
                    }
                }
                Err(fault) => return Err((batch, fault)),
            }
        }
    }

    /// Settles events as failed, to be redelivered; a fatal fault stops the worker as well.
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

    /// One call of the operator, with a timeout; a panic becomes a fault.
    async fn attempt(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        let timeout = self.stage.timeout;
        out.begin_attempt();
        let work = AssertUnwindSafe(self.operator.process(batch, out)).catch_unwind();
        match tokio::time::timeout(timeout, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                self.flow.panics.fetch_add(1, Ordering::Relaxed);
                // Its state may be inconsistent: go on with a fresh instance.
                self.operator = (self.stage.build)().map_err(Fault::Fatal)?;
                Err(Fault::retry(format!("panicked: {}", panic_text(&*panic))))
            }
            Err(_) => Err(Fault::retry(format!("took longer than timeout_ms = {}", timeout.as_millis()))),
        }
    }
}

/// Brings the payloads of admitted events into memory, in the order of the batch; settles events whose payload is lost or
/// cannot be fetched now.
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

/// Settles an event that is cancelled or past its deadline; whether it is still worth working on.
fn retain_or_settle(event: &Event, out: &mut Output) -> bool {
    let Some(why) = event.obsolete() else { return true };
    out.reject(event, why);
    event.root.finish();
    false
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

#[cfg(test)]
mod tests;
