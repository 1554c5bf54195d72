//! Runs one task: admission to the queue, a worker, a second attempt after a crash, quarantine.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pipeline::documents::{ConvertError, Converted, InvalidOption};
use tokio::sync::TryAcquireError;
use tokio::time::{Instant, timeout_at};

use super::super::protocol::{DocumentFault, JobResult, Reply};
use super::job_folder::JobFolder;
use super::pool_state::{PoolState, StartRequest};
use super::recycle::RestartReason;
use super::task::Task;
use super::worker_process::Worker;

/// Attempts per document.
const MAX_ATTEMPTS: u32 = 2;

/// Why an attempt failed.
enum Failure {
    /// A final error for the requester.
    Error(ConvertError),
    /// The worker crashed; says how it ended.
    Crash(String),
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Self {
        Self::Error(error)
    }
}

/// The result of a task, with the file names that the worker chose.
pub(super) struct TaskResult {
    pub names: Vec<String>,
    pub converted: Converted,
}

/// Waits for a worker and runs the task; tries a second time after a crash.
pub(super) async fn run_task(pool: Arc<PoolState>, task: Task) -> Result<TaskResult, ConvertError> {
    let (deadline, hashed) = (task.deadline(), task.clone());
    // Hashing megabytes takes milliseconds, so it runs on a blocking thread.
    let digest = tokio::task::spawn_blocking(move || hashed.digest()).await.unwrap_or_default();
    pool.quarantine.lock().unwrap_or_else(PoisonError::into_inner).check(&digest, Instant::now())?;
    let _queue_permit = pool.queue.try_acquire().map_err(|error| match error {
        TryAcquireError::NoPermits => ConvertError::QueueFull { waiting: pool.config.queue },
        TryAcquireError::Closed => ConvertError::Stopping,
    })?;
    let run_permit = timeout_at(deadline, pool.run_permits.acquire()).await.map_err(|_| ConvertError::Busy)?;
    let _run_permit = run_permit.map_err(|_| ConvertError::Stopping)?;
    let mut signal = String::new();
    for attempt in 1..=MAX_ATTEMPTS {
        if attempt > 1 {
            pool.metrics.job_retried();
        }
        match attempt_task(&pool, &task, attempt).await {
            Ok(result) => return Ok(result),
            Err(Failure::Error(error)) => return Err(error),
            Err(Failure::Crash(exit)) => signal = exit,
        }
        if Instant::now() >= deadline {
            return Err(ConvertError::EngineCrashed { attempts: attempt, signal });
        }
    }
    let error = ConvertError::EngineCrashed { attempts: MAX_ATTEMPTS, signal };
    let mut quarantine = pool.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
    quarantine.add(digest, Instant::now() + pool.config.quarantine, error.clone());
    Err(error)
}

async fn attempt_task(pool: &Arc<PoolState>, task: &Task, attempt: u32) -> Result<TaskResult, Failure> {
    let mut worker = timeout_at(task.deadline(), next_idle_worker(pool)).await.map_err(|_| ConvertError::Busy)??;
    pool.metrics.worker_busy(true);
    let began = Instant::now();
    let limit = task.deadline().min(began + pool.config.job_timeout);
    let outcome = timeout_at(limit, exchange(pool, &mut worker, task, attempt)).await;
    pool.metrics.worker_busy(false);
    match outcome {
        Ok(Ok((result, restart))) => {
            release_worker(pool, worker, restart).await;
            result.map_err(Failure::Error)
        }
        Ok(Err(error)) => Err(Failure::Crash(end_worker(pool, worker, RestartReason::Crash, Some(error)).await)),
        Err(_) => {
            end_worker(pool, worker, RestartReason::Timeout, None).await;
            Err(ConvertError::Timeout { after: began.elapsed() }.into())
        }
    }
}

/// The next idle worker. One that ended while it was idle is replaced, and no document is blamed for it.
async fn next_idle_worker(pool: &Arc<PoolState>) -> Result<Worker, ConvertError> {
    loop {
        let mut worker = pool.idle.lock().await.recv().await.ok_or(ConvertError::Stopping)?;
        if worker.is_alive() {
            return Ok(worker);
        }
        // In a task of its own: the caller may stop waiting at any moment, and the worker must be replaced anyway.
        let pool = Arc::clone(pool);
        tokio::spawn(async move { end_worker(&pool, worker, RestartReason::Crash, None).await });
    }
}

/// The result, and why the worker should be replaced after it, if it should.
type Outcome = (Result<TaskResult, ConvertError>, Option<RestartReason>);

/// Passes the documents to the worker and reads the results from its folder. After an error the worker must be ended.
async fn exchange(pool: &PoolState, worker: &mut Worker, task: &Task, attempt: u32) -> Result<Outcome, std::io::Error> {
    let job = pool.job_numbers.fetch_add(1, Ordering::Relaxed).to_string();
    let jobs = worker.jobs().clone();
    if let Err(error) = jobs.write(&job, task.files()).await {
        return Ok((Err(ConvertError::Storage(error.to_string())), None));
    }
    let request = task.request(worker.job_folder(&job), attempt, &pool.config);
    let outcome = match worker.exchange(&request).await? {
        Reply::Done(result) => {
            let restart = worker.recycle.record(task.class(), &result);
            pool.metrics.job_done(&result);
            (read_results(&jobs, &job, result, pool.config.largest_output).await, restart)
        }
        Reply::Rejected { fault, why } => (Err(convert_error(fault, why)), None),
        other => return Err(std::io::Error::other(format!("unexpected message {other:?}"))),
    };
    // A leftover folder is removed with the worker, but a worker may live for a day.
    if let Err(error) = jobs.remove(&job).await {
        tracing::warn!(%error, "the folder of a job could not be removed");
    }
    Ok(outcome)
}

/// Reads the files that the worker names. The names are not trusted.
async fn read_results(
    jobs: &JobFolder,
    job: &str,
    result: JobResult,
    max_bytes: u64,
) -> Result<TaskResult, ConvertError> {
    let files = jobs.read(job, result.files.clone(), max_bytes).await;
    let files = files.map_err(|error| ConvertError::Storage(error.to_string()))?;
    let (load, save) = (Duration::from_millis(result.ms_load), Duration::from_millis(result.ms_save));
    let converted = Converted { files, pages: result.pages, load, save, cpu: Duration::from_millis(result.ms_cpu) };
    Ok(TaskResult { names: result.files, converted })
}

fn convert_error(fault: DocumentFault, why: String) -> ConvertError {
    match fault {
        DocumentFault::Unreadable => ConvertError::Unreadable(why),
        DocumentFault::PasswordRequired => ConvertError::PasswordRequired,
        DocumentFault::PasswordWrong => ConvertError::PasswordWrong,
        DocumentFault::PdfUnreadable => ConvertError::PdfUnreadable(why),
        DocumentFault::PdfEncrypted => ConvertError::PdfEncrypted(why),
        DocumentFault::PagesMissing => ConvertError::PagesMissing(why),
        DocumentFault::TooLarge => ConvertError::ResultTooLarge(why),
        DocumentFault::BadPassword => ConvertError::InvalidOption(InvalidOption { option: "password", why }),
    }
}

/// Returns the worker to the idle ones, or replaces it.
async fn release_worker(pool: &PoolState, worker: Worker, restart: Option<RestartReason>) {
    match restart {
        None => drop(pool.returned.try_send(worker)),
        Some(reason) => drop(end_worker(pool, worker, reason, None).await),
    }
}

/// Ends a worker and requests another; returns how it ended.
async fn end_worker(pool: &PoolState, worker: Worker, reason: RestartReason, error: Option<std::io::Error>) -> String {
    let pid = worker.pid();
    let early_crash = reason == RestartReason::Crash && worker.recycle.has_done_nothing();
    let request = if early_crash { StartRequest::AfterEarlyCrash } else { StartRequest::Normal };
    let end = worker.stop().await;
    pool.metrics.worker_ended(pid, Some(reason));
    match reason {
        RestartReason::Crash | RestartReason::Timeout => {
            let error = error.map(tracing::field::display);
            tracing::warn!(pid, reason = reason.name(), end, error, "a document worker was lost");
        }
        _ => tracing::debug!(pid, reason = reason.name(), "a document worker is replaced"),
    }
    // The channel has room for one request per worker.
    let _ = pool.start_requests.try_send(request);
    end
}
