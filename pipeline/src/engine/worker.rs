//! One worker of a stage: takes a batch, drops obsolete events, processes the rest, settles.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::flow_shared::FlowShared;
use super::outage::Wait;
use super::stage::Stage;
use crate::edges::{BULK_SLICE, BatchLimits, BlockedTime, Output, ProgressReporter};
use crate::event::Event;
use crate::fault::{BoxError, Fault};
use crate::operator::Operator;
use crate::payload::wire_form;
use crate::transport::Transport;

/// How often the events of a batch that waits are looked through for those that are obsolete by now.
const REVIEW: Duration = Duration::from_secs(2);

/// One worker. It runs until the queue is closed and empty, or the operator is broken.
pub struct Worker {
    pub stage: Arc<Stage>,
    pub flow: Arc<FlowShared>,
    pub transport: Arc<dyn Transport>,
    /// This worker's own instance; replaced after a panic.
    pub operator: Box<dyn Operator>,
}

/// Why events are handed back when a drain ends the wait for a dependency.
const DRAINING: &str = "the flow stopped during an outage";

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
            let fetched = fetch::fetch(&stage.name, &self.flow.storage, &*self.transport, admitted, out).await;
            if let Err(error) = self.attempt_all(fetched, out).await {
                self.hand_back(&batch, "the stage stopped before it began the event", out);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Processes a batch; if it fails, its events one at a time, so that a bad one is found and the others are done. Every
    /// event is settled when this returns.
    async fn attempt_all(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), BoxError> {
        let Err((batch, cause)) = self.attempt_through_outage(batch, out).await else { return Ok(()) };
        let fault = match cause {
            Cause::Draining => {
                self.hand_back(&batch, DRAINING, out);
                return Ok(());
            }
            Cause::Fault(fault) if batch.len() == 1 || matches!(fault, Fault::Fatal(_)) => {
                return self.give_back(&batch, fault, out);
            }
            Cause::Fault(fault) => fault,
        };
        tracing::warn!(flow = %self.flow.name, stage = %self.stage.name, events = batch.len(), error = %chain(&fault),
            "batch failed, its events are tried one at a time");
        let mut events = batch.into_iter();
        while let Some(event) = events.next() {
            let given_back = match self.attempt_through_outage(vec![event], out).await {
                Ok(()) => Ok(()),
                Err((event, Cause::Draining)) => {
                    self.hand_back(&event, DRAINING, out);
                    Ok(())
                }
                Err((event, Cause::Fault(fault))) => self.give_back(&event, fault, out),
            };
            if given_back.is_err() {
                self.hand_back(events.as_slice(), "the stage stopped before it tried the event again", out);
                return given_back;
            }
        }
        Ok(())
    }

    /// One attempt, and another whenever the dependency was out of reach, for as long as the retry policy says. Done events
    /// are settled here; a batch that is not done is returned with the cause.
    async fn attempt_through_outage(
        &mut self,
        mut batch: Vec<Event>,
        out: &mut Output,
    ) -> Result<(), (Vec<Event>, Cause)> {
        let stage = Arc::clone(&self.stage);
        let mut wait = stage.outage.begin(self.flow.retry.patience());
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
                    match wait_for_next_attempt(&self.flow.draining, &mut wait, &error, &mut batch, out).await {
                        Next::Attempt => {}
                        Next::Drain => return Err((batch, Cause::Draining)),
                        Next::GiveUp => return Err((batch, Cause::Fault(Fault::Retry(error)))),
                    }
                }
                Err(fault) => {
                    // Not out of reach: it answered, or the fault is the operator's.
                    wait.succeed();
                    return Err((batch, Cause::Fault(fault)));
                }
            }
        }
    }

    /// Settles events as not begun: the broker redelivers them, and nothing counts as a fault.
    fn hand_back(&self, events: &[Event], why: &'static str, out: &mut Output) {
        if events.is_empty() {
            return;
        }
        let (flow, stage) = (&self.flow.name, &*self.stage.name);
        tracing::info!(%flow, stage, events = events.len(), why, "handed back");
        for event in events {
            out.hand_back(event);
            event.root.hand_back(why);
            out.finish(event);
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
        let blocked = out.blocked_time();
        let work = AssertUnwindSafe(self.operator.process(batch, out)).catch_unwind();
        match within(timeout, &blocked, work).await {
            Some(Ok(result)) => result,
            Some(Err(panic)) => {
                self.flow.panics.fetch_add(1, Ordering::Relaxed);
                // Its state may be inconsistent: go on with a fresh instance.
                self.operator = (self.stage.build)().map_err(Fault::Fatal)?;
                Err(Fault::retry(format!("panicked: {}", panic_text(&*panic))))
            }
            None => Err(Fault::retry(format!("took longer than timeout_ms = {}", timeout.as_millis()))),
        }
    }
}

/// Why a batch is not done.
enum Cause {
    /// It failed.
    Fault(Fault),
    /// The flow drains during an outage: another process may reach what this one does not.
    Draining,
}

/// What follows a wait for an unavailable dependency.
enum Next {
    Attempt,
    Drain,
    GiveUp,
}

/// Waits for the next attempt at a batch, until the flow drains or the patience is over. Settles the events meanwhile that
/// are obsolete: the outage may be long.
async fn wait_for_next_attempt(
    draining: &CancellationToken,
    wait: &mut Wait<'_>,
    error: &BoxError,
    batch: &mut Vec<Event>,
    out: &mut Output,
) -> Next {
    // Kept while it is waited for, so that the worker keeps its place in line.
    let mut pausing = std::pin::pin!(wait.pause(error));
    while !batch.is_empty() {
        tokio::select! {
            biased;
            () = draining.cancelled() => return Next::Drain,
            goes_on = &mut pausing => return if goes_on { Next::Attempt } else { Next::GiveUp },
            () = tokio::time::sleep(REVIEW) => batch.retain(|event| retain_or_settle(event, out)),
        }
    }
    Next::Attempt
}

/// Waits until `work` is done, for at most `timeout` of its own time: while it is blocked downstream its time stands still.
/// `None` if it took longer.
async fn within<W: Future>(timeout: Duration, blocked: &BlockedTime, work: W) -> Option<W::Output> {
    let mut work = std::pin::pin!(work);
    let (mut left, mut known) = (timeout, blocked.total());
    while !left.is_zero() {
        if let Ok(done) = tokio::time::timeout(left, &mut work).await {
            return Some(done);
        }
        let total = blocked.total();
        left = total - known;
        known = total;
    }
    None
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

mod fetch;
#[cfg(test)]
mod tests;
