//! One worker process as the supervisor sees it: started, spoken to, killed with its group, reaped, its folder removed.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rand::Rng as _;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::super::protocol::{Canary, Engine, Order, Reply, Setup, receive_async, send_async};
use super::super::selftest::{Hole, SECRET_FILE, SECRET_VARIABLE};
use super::config::PoolConfig;
use super::jobs::Jobs;
use super::recycle::Wear;
use super::spawner::Spawner;

/// Why a worker did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The sandbox leaks.
    #[error(
        "the sandbox of the document engine leaks: a worker could {}; missing: {}. Give the service a kernel with Landlock and \
         user namespaces, or accept it with `insist = false`",
        names(.holes), list(.missing)
    )]
    Refused {
        /// What the self-test could do.
        holes: Vec<Hole>,
        /// Layers that are not there.
        missing: Vec<String>,
    },
    /// The engine is not usable.
    #[error("{0}")]
    Broken(String),
    /// The process ended, or said something else.
    #[error("a document worker did not start: {0}")]
    Died(String),
    /// It took too long.
    #[error("a document worker was not ready in time")]
    Late,
    /// The machine refused something.
    #[error("a document worker could not be started")]
    System(#[from] io::Error),
}

fn names(holes: &[Hole]) -> String {
    holes.iter().map(|hole| format!("{hole:?}").to_lowercase()).collect::<Vec<_>>().join(", ")
}

fn list(missing: &[String]) -> String {
    if missing.is_empty() { "nothing".to_owned() } else { missing.join("; ") }
}

/// Where a worker has its jobs, in its folder.
const JOBS: &str = "jobs";

/// A living worker.
pub(super) struct Worker {
    process: Process,
    pid: u32,
    pipe: UnixStream,
    folder: TempDir,
    jobs: Jobs,
    pub(super) wear: Wear,
    pub(super) version: String,
    pub(super) missing: Vec<String>,
    pub(super) holes: Vec<Hole>,
}

impl Worker {
    /// Starts a worker and waits until it is ready.
    pub(super) async fn start(config: &PoolConfig, root: &Path, spawner: &Spawner) -> Result<Self, StartError> {
        let folder = tempfile::Builder::new().prefix("worker-").tempdir_in(root)?;
        let jobs = Jobs::make(&folder.path().join(JOBS))?;
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut child = spawner.spawn(command(config, folder.path(), theirs)).await?;
        let pid = child.id().ok_or_else(|| StartError::Died("at once".into()))?;
        if let Some(output) = child.stderr.take() {
            tokio::spawn(log(pid, output));
        }
        let mut worker = Self {
            process: Process(child),
            pid,
            pipe: UnixStream::from_std(ours)?,
            folder,
            jobs,
            wear: Wear::new(&config.recycle, rand::rng().random_range(0.8..1.2)),
            version: String::new(),
            missing: Vec::new(),
            holes: Vec::new(),
        };
        let ready = timeout(config.start_timeout, worker.greet(config, root)).await.unwrap_or(Err(StartError::Late));
        match ready {
            Ok(()) => Ok(worker),
            Err(error) => {
                let end = worker.stop().await;
                Err(if let StartError::Died(why) = error { StartError::Died(format!("{why} ({end})")) } else { error })
            }
        }
    }

    async fn greet(&mut self, config: &PoolConfig, root: &Path) -> Result<(), StartError> {
        // It listens while the worker starts, so that the self-test has something to reach.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let setup = Setup {
            folder: self.folder.path().to_owned(),
            engine: config.engine.clone(),
            layers: config.layers,
            limits: config.limits,
            canary: Canary { address: listener.local_addr()?, folder: canary_folder(root) },
            insist: config.insist,
        };
        let died = |error: io::Error| StartError::Died(error.to_string());
        send_async(&mut self.pipe, &setup).await.map_err(died)?;
        match receive_async(&mut self.pipe).await.map_err(died)? {
            Reply::Ready { version, missing, holes, .. } => {
                (self.version, self.missing, self.holes) = (version, missing, holes);
                Ok(())
            }
            Reply::Refused { holes, missing } => Err(StartError::Refused { holes, missing }),
            Reply::Broken { why } => Err(StartError::Broken(why)),
            other => Err(StartError::Died(format!("said {other:?}"))),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended yet.
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.process.0.try_wait(), Ok(None))
    }

    /// The folder of its jobs, for this side.
    pub(super) fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The folder of one job, as the worker knows it.
    pub(super) fn job_folder(&self, job: &str) -> PathBuf {
        self.folder.path().join(JOBS).join(job)
    }

    /// Hands over a job and waits for the answer. An error means that this worker is not to be trusted any more.
    pub(super) async fn exchange(&mut self, order: &Order) -> io::Result<Reply> {
        send_async(&mut self.pipe, order).await?;
        match receive_async(&mut self.pipe).await? {
            reply @ (Reply::Done(_) | Reply::Rejected { .. }) => Ok(reply),
            other => Err(io::Error::other(format!("unexpected {other:?}"))),
        }
    }

    /// Ends the worker; when this returns there is no process and no folder of it any more. How it ended, in words: by
    /// itself if it had before.
    pub(super) async fn stop(mut self) -> String {
        let ended = self.process.0.try_wait().ok().flatten();
        self.process.kill();
        let status = match ended {
            Some(status) => Ok(status),
            None => self.process.0.wait().await,
        };
        let folder = self.folder;
        let removed = tokio::task::spawn_blocking(move || folder.close()).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "the folder of a document worker was not removed");
        }
        status.map_or_else(|error| error.to_string(), in_words)
    }
}

/// Killed when it is dropped, with its group.
struct Process(Child);

impl Process {
    /// The group first; the process itself in case it had not made one yet.
    fn kill(&self) {
        // After it was reaped, the number may belong to another process.
        let Some(pid) = self.0.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) else { return };
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = kill_process(pid, Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder that no worker may touch.
pub(super) fn canary_folder(root: &Path) -> PathBuf {
    root.join("canary")
}

/// Fills it.
pub(super) fn place_canary(root: &Path) -> io::Result<()> {
    std::fs::create_dir(canary_folder(root))?;
    std::fs::write(canary_folder(root).join(SECRET_FILE), "not for workers")
}

fn command(config: &PoolConfig, folder: &Path, pipe: StdUnixStream) -> Command {
    let (program, arguments) = &config.worker;
    let mut command = Command::new(program);
    command.args(arguments).arg(std::process::id().to_string()).current_dir("/");
    command.stdin(Stdio::from(OwnedFd::from(pipe)));
    command.env(SECRET_VARIABLE, "not for workers");
    if config.layers.environment {
        command.env_clear();
    }
    command.env("LANG", "C.UTF-8").env("TZ", "UTC").env("TMPDIR", folder.join("tmp"));
    if let Engine::LibreOffice(_) = config.engine {
        let overlay = super::super::profile::overlay_folder(folder);
        command.env("BRAND_BASE_DIR", format!("file://{}", overlay.display()));
    }
    command
}

/// What the engine prints is for whoever looks for a fault in it.
async fn log(pid: u32, output: ChildStderr) {
    let mut lines = BufReader::new(tokio::io::AsyncReadExt::take(output, MOST_OUTPUT)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::debug!(pid, line, "document worker");
    }
}

/// Bytes of a worker's output that are read; a worker that prints more is cut off, and what it prints then is lost.
const MOST_OUTPUT: u64 = 1 << 20;

fn in_words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (_, Some(code)) => format!("exit code {code}"),
        _ => "unknown end".to_owned(),
    }
}
