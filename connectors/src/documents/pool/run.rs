//! One conversion, from the queue to the answer.

use std::path::Path;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use pipeline::documents::{Conversion, ConvertError, Converted};
use sha2::{Digest as _, Sha256};
use tokio::sync::TryAcquireError;
use tokio::time::{Instant, timeout_at};

use super::super::protocol::{Done, Fault, Job, Reply};
use super::Shared;
use super::keeper::Vacancy;
use super::process::Worker;
use super::quarantine::Digest;
use super::recycle::Reason;

/// How often a document is tried.
const ATTEMPTS: u32 = 2;

/// How an attempt ended without an answer.
enum Failure {
    /// An answer after all.
    Error(ConvertError),
    /// The worker died of it, in words.
    Crash(String),
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Self {
        Self::Error(error)
    }
}

/// Waits for a place, converts, tries a second time after a crash.
pub(super) async fn convert(shared: Arc<Shared>, conversion: Conversion) -> Result<Converted, ConvertError> {
    let digest = digest(conversion.input.clone()).await;
    shared.quarantine.lock().unwrap_or_else(PoisonError::into_inner).check(&digest, Instant::now())?;
    let _place = shared.queue.try_acquire().map_err(|error| match error {
        TryAcquireError::NoPermits => ConvertError::QueueFull { waiting: shared.config.queue },
        TryAcquireError::Closed => ConvertError::Stopping,
    })?;
    let seat = timeout_at(conversion.deadline, shared.seats.acquire()).await.map_err(|_| ConvertError::Busy)?;
    let _seat = seat.map_err(|_| ConvertError::Stopping)?;
    let mut signal = String::new();
    for attempt in 1..=ATTEMPTS {
        if attempt > 1 {
            shared.figures.retried();
        }
        match once(&shared, &conversion, attempt).await {
            Ok(converted) => return Ok(converted),
            Err(Failure::Error(error)) => return Err(error),
            Err(Failure::Crash(words)) => signal = words,
        }
        if Instant::now() >= conversion.deadline {
            return Err(ConvertError::EngineCrashed { attempts: attempt, signal });
        }
    }
    let error = ConvertError::EngineCrashed { attempts: ATTEMPTS, signal };
    let mut quarantine = shared.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
    quarantine.hold(digest, Instant::now() + shared.config.quarantine, error.clone());
    Err(error)
}

/// Megabytes take milliseconds, so not on the runtime's threads.
async fn digest(input: Bytes) -> Digest {
    tokio::task::spawn_blocking(move || Sha256::digest(&input).into()).await.unwrap_or_default()
}

async fn once(shared: &Shared, conversion: &Conversion, attempt: u32) -> Result<Converted, Failure> {
    let mut worker = timeout_at(conversion.deadline, living(shared)).await.map_err(|_| ConvertError::Busy)??;
    shared.figures.busy(true);
    let began = Instant::now();
    let limit = conversion.deadline.min(began + shared.config.job_timeout);
    let outcome = timeout_at(limit, exchange(shared, &mut worker, conversion, attempt)).await;
    shared.figures.busy(false);
    match outcome {
        Ok(Ok((converted, recycle))) => {
            settle(shared, worker, recycle).await;
            converted.map_err(Failure::Error)
        }
        Ok(Err(error)) => Err(Failure::Crash(dismiss(shared, worker, Reason::Crash, Some(error)).await)),
        Err(_) => {
            dismiss(shared, worker, Reason::Timeout, None).await;
            Err(ConvertError::Timeout { after: began.elapsed() }.into())
        }
    }
}

/// The next idle worker. One that died while it had nothing to do is replaced, and no document is blamed for it.
async fn living(shared: &Shared) -> Result<Worker, ConvertError> {
    loop {
        let mut worker = shared.idle.lock().await.recv().await.ok_or(ConvertError::Stopping)?;
        if worker.lives() {
            return Ok(worker);
        }
        dismiss(shared, worker, Reason::Crash, None).await;
    }
}

/// An answer, and whether the worker should leave after it.
type Answer = (Result<Converted, ConvertError>, Option<Reason>);

/// Gives the worker the document and takes the result out of its folder. An error is the worker's end.
async fn exchange(
    shared: &Shared,
    worker: &mut Worker,
    conversion: &Conversion,
    attempt: u32,
) -> Result<Answer, std::io::Error> {
    let number = shared.jobs.fetch_add(1, Ordering::Relaxed);
    let put = worker.put(&number.to_string(), &format!("in.{}", conversion.from), &conversion.input).await;
    let folder = match put {
        Ok(folder) => folder,
        Err(error) => return Ok((Err(ConvertError::Storage(error.to_string())), None)),
    };
    let job = Job {
        folder,
        from: conversion.from,
        to: conversion.to,
        options: conversion.options.clone(),
        attempt,
        largest_output: shared.config.largest_output,
        most_pages: shared.config.most_pages,
    };
    let reply = worker.exchange(&job).await?;
    let answer = match reply {
        Reply::Done(done) => {
            let class = if conversion.class.is_empty() { job.to.extension() } else { &conversion.class };
            let recycle = worker.wear.note(class, &done);
            shared.figures.done(&done);
            (collect(&job.folder, done, job.largest_output).await, recycle)
        }
        Reply::Rejected { fault, why } => (Err(rejected(fault, why)), None),
        other => return Err(std::io::Error::other(format!("unexpected {other:?}"))),
    };
    // What stays is removed with the worker, but a worker may live for a day.
    if let Err(error) = tokio::fs::remove_dir_all(&job.folder).await {
        tracing::warn!(%error, "the folder of a conversion was not removed");
    }
    Ok(answer)
}

fn rejected(fault: Fault, why: String) -> ConvertError {
    match fault {
        Fault::Unreadable => ConvertError::Unreadable(why),
        Fault::PasswordRequired => ConvertError::PasswordRequired,
        Fault::PasswordWrong => ConvertError::PasswordWrong,
    }
}

/// Reads the files that the worker names. It is not trusted: only plain files of its folder, no larger than agreed.
async fn collect(folder: &Path, done: Done, largest: u64) -> Result<Converted, ConvertError> {
    let failed = |why: String| ConvertError::Storage(why);
    let mut files = Vec::with_capacity(done.files.len());
    let mut left = largest;
    for name in &done.files {
        if name.contains('/') {
            return Err(failed(format!("a worker named {name:?}")));
        }
        let path = folder.join(name);
        let about = tokio::fs::symlink_metadata(&path).await.map_err(|error| failed(error.to_string()))?;
        if !about.is_file() || about.len() > left {
            return Err(failed(format!("{name} is no file of at most {left} bytes")));
        }
        left -= about.len();
        files.push(Bytes::from(tokio::fs::read(&path).await.map_err(|error| failed(error.to_string()))?));
    }
    Ok(Converted {
        files,
        pages: done.pages,
        load: Duration::from_millis(done.ms_load),
        save: Duration::from_millis(done.ms_save),
        cpu: Duration::from_millis(done.ms_cpu),
    })
}

/// Gives the worker back, or replaces it.
async fn settle(shared: &Shared, worker: Worker, recycle: Option<Reason>) {
    match recycle {
        None => drop(shared.returned.try_send(worker)),
        Some(reason) => drop(dismiss(shared, worker, reason, None).await),
    }
}

/// Ends a worker and asks for another; how it ended, in words.
async fn dismiss(shared: &Shared, worker: Worker, reason: Reason, error: Option<std::io::Error>) -> String {
    let pid = worker.pid();
    let fruitless = reason == Reason::Crash && worker.wear.fresh();
    let vacancy = if fruitless { Vacancy::Fruitless } else { Vacancy::Ordinary };
    let end = worker.stop().await;
    shared.figures.gone(pid, Some(reason));
    match reason {
        Reason::Crash | Reason::Timeout => {
            let error = error.map(tracing::field::display);
            tracing::warn!(pid, reason = reason.name(), end, error, "a document worker was lost");
        }
        _ => tracing::debug!(pid, reason = reason.name(), "a document worker is replaced"),
    }
    // As many vacancies as workers have room.
    let _ = shared.vacancies.try_send(vacancy);
    end
}
