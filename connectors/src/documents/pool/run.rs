//! One piece of work, from the queue to the answer.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pipeline::documents::{ConvertError, Converted, InvalidOption};
use tokio::sync::TryAcquireError;
use tokio::time::{Instant, timeout_at};

use super::super::protocol::{Done, Fault, Reply};
use super::Shared;
use super::jobs::Jobs;
use super::keeper::Vacancy;
use super::process::Worker;
use super::recycle::Reason;
use super::work::Work;

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

/// What came of it, with the names that the worker gave the files.
pub(super) struct Made {
    pub names: Vec<String>,
    pub converted: Converted,
}

/// Waits for a place, has it done, tries a second time after a crash.
pub(super) async fn run(shared: Arc<Shared>, work: Work) -> Result<Made, ConvertError> {
    let (deadline, hashed) = (work.deadline(), work.clone());
    // Megabytes take milliseconds, so not on the runtime's threads.
    let digest = tokio::task::spawn_blocking(move || hashed.digest()).await.unwrap_or_default();
    shared.quarantine.lock().unwrap_or_else(PoisonError::into_inner).check(&digest, Instant::now())?;
    let _place = shared.queue.try_acquire().map_err(|error| match error {
        TryAcquireError::NoPermits => ConvertError::QueueFull { waiting: shared.config.queue },
        TryAcquireError::Closed => ConvertError::Stopping,
    })?;
    let seat = timeout_at(deadline, shared.seats.acquire()).await.map_err(|_| ConvertError::Busy)?;
    let _seat = seat.map_err(|_| ConvertError::Stopping)?;
    let mut signal = String::new();
    for attempt in 1..=ATTEMPTS {
        if attempt > 1 {
            shared.figures.retried();
        }
        match once(&shared, &work, attempt).await {
            Ok(made) => return Ok(made),
            Err(Failure::Error(error)) => return Err(error),
            Err(Failure::Crash(words)) => signal = words,
        }
        if Instant::now() >= deadline {
            return Err(ConvertError::EngineCrashed { attempts: attempt, signal });
        }
    }
    let error = ConvertError::EngineCrashed { attempts: ATTEMPTS, signal };
    let mut quarantine = shared.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
    quarantine.hold(digest, Instant::now() + shared.config.quarantine, error.clone());
    Err(error)
}

async fn once(shared: &Arc<Shared>, work: &Work, attempt: u32) -> Result<Made, Failure> {
    let mut worker = timeout_at(work.deadline(), living(shared)).await.map_err(|_| ConvertError::Busy)??;
    shared.figures.busy(true);
    let began = Instant::now();
    let limit = work.deadline().min(began + shared.config.job_timeout);
    let outcome = timeout_at(limit, exchange(shared, &mut worker, work, attempt)).await;
    shared.figures.busy(false);
    match outcome {
        Ok(Ok((made, recycle))) => {
            settle(shared, worker, recycle).await;
            made.map_err(Failure::Error)
        }
        Ok(Err(error)) => Err(Failure::Crash(dismiss(shared, worker, Reason::Crash, Some(error)).await)),
        Err(_) => {
            dismiss(shared, worker, Reason::Timeout, None).await;
            Err(ConvertError::Timeout { after: began.elapsed() }.into())
        }
    }
}

/// The next idle worker. One that died while it had nothing to do is replaced, and no document is blamed for it.
async fn living(shared: &Arc<Shared>) -> Result<Worker, ConvertError> {
    loop {
        let mut worker = shared.idle.lock().await.recv().await.ok_or(ConvertError::Stopping)?;
        if worker.lives() {
            return Ok(worker);
        }
        // In a task of its own: whoever waits here may give up any moment, and the place must be filled all the same.
        let shared = Arc::clone(shared);
        tokio::spawn(async move { dismiss(&shared, worker, Reason::Crash, None).await });
    }
}

/// An answer, and whether the worker should leave after it.
type Answer = (Result<Made, ConvertError>, Option<Reason>);

/// Gives the worker the documents and takes the results out of its folder. An error is the worker's end.
async fn exchange(shared: &Shared, worker: &mut Worker, work: &Work, attempt: u32) -> Result<Answer, std::io::Error> {
    let job = shared.jobs.fetch_add(1, Ordering::Relaxed).to_string();
    let jobs = worker.jobs().clone();
    if let Err(error) = jobs.put(&job, work.files()).await {
        return Ok((Err(ConvertError::Storage(error.to_string())), None));
    }
    let order = work.order(worker.job_folder(&job), attempt, &shared.config);
    let answer = match worker.exchange(&order).await? {
        Reply::Done(done) => {
            let recycle = worker.wear.note(work.class(), &done);
            shared.figures.done(&done);
            (taken(&jobs, &job, done, shared.config.largest_output).await, recycle)
        }
        Reply::Rejected { fault, why } => (Err(rejected(fault, why)), None),
        other => return Err(std::io::Error::other(format!("unexpected {other:?}"))),
    };
    // What stays is removed with the worker, but a worker may live for a day.
    if let Err(error) = jobs.remove(&job).await {
        tracing::warn!(%error, "the folder of a conversion was not removed");
    }
    Ok(answer)
}

/// The files that the worker names. It is not trusted.
async fn taken(jobs: &Jobs, job: &str, done: Done, most: u64) -> Result<Made, ConvertError> {
    let files = jobs.take(job, done.files.clone(), most).await;
    let files = files.map_err(|error| ConvertError::Storage(error.to_string()))?;
    let (load, save) = (Duration::from_millis(done.ms_load), Duration::from_millis(done.ms_save));
    let converted = Converted { files, pages: done.pages, load, save, cpu: Duration::from_millis(done.ms_cpu) };
    Ok(Made { names: done.files, converted })
}

fn rejected(fault: Fault, why: String) -> ConvertError {
    match fault {
        Fault::Unreadable => ConvertError::Unreadable(why),
        Fault::PasswordRequired => ConvertError::PasswordRequired,
        Fault::PasswordWrong => ConvertError::PasswordWrong,
        Fault::PdfUnreadable => ConvertError::PdfUnreadable(why),
        Fault::PdfEncrypted => ConvertError::PdfEncrypted(why),
        Fault::PagesMissing => ConvertError::PagesMissing(why),
        Fault::TooLarge => ConvertError::ResultTooLarge(why),
        Fault::BadPassword => ConvertError::InvalidOption(InvalidOption { option: "password", why }),
    }
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
