//! A worker process as the supervisor sees it: starts it, exchanges messages, kills its process group, removes its
//! folder.

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

use super::super::install_overlay::overlay_folder;
use super::super::protocol::{Engine, Reply, Request, Setup, receive_async, send_async};
use super::super::sandbox_selftest::{Canary, SECRET_FILE, SECRET_VARIABLE, SandboxLeak};
use super::config::PoolConfig;
use super::job_folder::JobFolder;
use super::recycle::RecyclePolicy;
use super::spawner::Spawner;

/// Why a worker did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The sandbox leaks.
    #[error(
        "the sandbox of the document workers leaks: a worker could {}; missing: {}. Give the service a kernel with \
         Landlock and user namespaces, or accept the leak with `require_sandbox = false`",
        leak_names(.leaks), list(.missing)
    )]
    Refused {
        /// What the self-test found open.
        leaks: Vec<SandboxLeak>,
        /// Layers that the kernel does not support, with the reason.
        missing: Vec<String>,
    },
    /// LibreOffice cannot be used.
    #[error("{0}")]
    Broken(String),
    /// The process ended, or sent an unexpected message.
    #[error("a document worker did not start: {0}")]
    Ended(String),
    /// It was not ready within the timeout.
    #[error("a document worker was not ready in time")]
    TimedOut,
    /// A system call failed.
    #[error("a document worker could not be started")]
    System(#[from] io::Error),
}

fn leak_names(leaks: &[SandboxLeak]) -> String {
    leaks.iter().map(|leak| format!("{leak:?}").to_lowercase()).collect::<Vec<_>>().join(", ")
}

fn list(missing: &[String]) -> String {
    if missing.is_empty() { "nothing".to_owned() } else { missing.join("; ") }
}

/// The folder of jobs in a worker's folder.
const JOBS: &str = "jobs";

/// A worker that is ready.
pub(super) struct Worker {
    process: Process,
    pid: u32,
    pipe: UnixStream,
    folder: TempDir,
    jobs: JobFolder,
    pub(super) recycle: RecyclePolicy,
    pub(super) version: String,
    pub(super) missing: Vec<String>,
    pub(super) leaks: Vec<SandboxLeak>,
}

impl Worker {
    /// Starts a worker and waits until it is ready.
    pub(super) async fn start(config: &PoolConfig, root: &Path, spawner: &Spawner) -> Result<Self, StartError> {
        let folder = tempfile::Builder::new().prefix("worker-").tempdir_in(root)?;
        let jobs = JobFolder::create(&folder.path().join(JOBS))?;
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut child = spawner.spawn(command(config, folder.path(), theirs)).await?;
        let pid = child.id().ok_or_else(|| StartError::Ended("immediately".into()))?;
        if let Some(output) = child.stderr.take() {
            tokio::spawn(log(pid, output));
        }
        let mut worker = Self {
            process: Process(child),
            pid,
            pipe: UnixStream::from_std(ours)?,
            folder,
            jobs,
            recycle: RecyclePolicy::new(&config.recycle, rand::rng().random_range(0.8..1.2)),
            version: String::new(),
            missing: Vec::new(),
            leaks: Vec::new(),
        };
        let ready =
            timeout(config.start_timeout, worker.set_up(config, root)).await.unwrap_or(Err(StartError::TimedOut));
        match ready {
            Ok(()) => Ok(worker),
            Err(error) => {
                let end = worker.stop().await;
                Err(if let StartError::Ended(why) = error {
                    StartError::Ended(format!("{why} ({end})"))
                } else {
                    error
                })
            }
        }
    }

    async fn set_up(&mut self, config: &PoolConfig, root: &Path) -> Result<(), StartError> {
        // Listens while the worker starts, so that the self-test has something to connect to.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let setup = Setup {
            folder: self.folder.path().to_owned(),
            engine: config.engine.clone(),
            layers: config.layers,
            limits: config.limits,
            canary: Canary { address: listener.local_addr()?, folder: canary_folder(root) },
            require_sandbox: config.require_sandbox,
        };
        let ended = |error: io::Error| StartError::Ended(error.to_string());
        send_async(&mut self.pipe, &setup).await.map_err(ended)?;
        match receive_async(&mut self.pipe).await.map_err(ended)? {
            Reply::Ready { version, missing, leaks, .. } => {
                (self.version, self.missing, self.leaks) = (version, missing, leaks);
                Ok(())
            }
            Reply::Refused { leaks, missing } => Err(StartError::Refused { leaks, missing }),
            Reply::Broken { why } => Err(StartError::Broken(why)),
            other => Err(StartError::Ended(format!("unexpected message {other:?}"))),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process is running.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.process.0.try_wait(), Ok(None))
    }

    /// The folder of its jobs, for the supervisor.
    pub(super) fn jobs(&self) -> &JobFolder {
        &self.jobs
    }

    /// The path of one job's folder, for the worker.
    pub(super) fn job_folder(&self, job: &str) -> PathBuf {
        self.folder.path().join(JOBS).join(job)
    }

    /// Sends a request and waits for the reply. After an error this worker must not be used again.
    pub(super) async fn exchange(&mut self, request: &Request) -> io::Result<Reply> {
        send_async(&mut self.pipe, request).await?;
        match receive_async(&mut self.pipe).await? {
            reply @ (Reply::Done(_) | Reply::Rejected { .. }) => Ok(reply),
            other => Err(io::Error::other(format!("unexpected message {other:?}"))),
        }
    }

    /// Ends the worker. When this returns, its process and its folder are gone. Returns how the process ended; if it
    /// had ended before, how it ended then.
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
        status.map_or_else(|error| error.to_string(), exit_text)
    }
}

/// The process; dropping it kills it and its process group.
struct Process(Child);

impl Process {
    /// Kills the group first, then the process itself in case it has not created its group yet.
    fn kill(&self) {
        // Once it was reaped, its process id may belong to another process.
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

/// The folder that no worker may read or write.
pub(super) fn canary_folder(root: &Path) -> PathBuf {
    root.join("canary")
}

/// Creates the canary folder.
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
        command.env("BRAND_BASE_DIR", format!("file://{}", overlay_folder(folder).display()));
    }
    command
}

/// Logs what the worker prints to standard error, for debugging.
async fn log(pid: u32, output: ChildStderr) {
    let mut lines = BufReader::new(tokio::io::AsyncReadExt::take(output, MAX_LOG_BYTES)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::debug!(pid, line, "document worker");
    }
}

/// Most bytes of a worker's standard error that are logged; the rest is discarded.
const MAX_LOG_BYTES: u64 = 1 << 20;

fn exit_text(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (_, Some(code)) => format!("exit code {code}"),
        _ => "unknown exit status".to_owned(),
    }
}
