//! The thread that starts the server, waits for its end, and starts it again.
//!
//! One thread for the life of the server: the signal that ends the child with us follows the thread that started it. The
//! child is reaped under the same lock under which it is signalled, so that no signal ever reaches a process that took
//! over its number.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::config;
use super::guard::LOCKED;
use super::keys::{self, Keys};
use super::{ServerError, ServerOptions};

/// How long a server may take until it listens; a large store is read first.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Pauses between looks for the ports file: it appears 10 to 40 ms after the start.
const LOOK: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(100));
/// Pauses before the server is started again.
const RESTART: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));
/// A server that ran this long was healthy: the pause begins anew.
const HEALTHY: Duration = Duration::from_secs(10);
/// Bytes of log shown when the server does not start.
const LOG_TAIL: u64 = 1 << 10;

/// What the thread and its owner share.
#[derive(Default)]
pub struct Supervisor {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pid: Option<Pid>,
    stopping: bool,
}

impl Supervisor {
    /// The child's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.lock().pid.map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Ends the child, by SIGKILL if `kill`, and starts it no more.
    pub fn stop(&self, kill: bool) {
        let mut state = self.lock();
        state.stopping = true;
        if let Some(pid) = state.pid {
            // The child is not reaped before `pid` is cleared, so the number is still its own.
            let _ = kill_process(pid, if kill { Signal::KILL } else { Signal::TERM });
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, or less if stopped; whether to go on.
    fn pause(&self, time: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, time, |state| !state.stopping);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.stopping
    }

    /// Starts a child, unless stopped meanwhile.
    fn spawn(&self, command: &mut Command) -> std::io::Result<Option<Child>> {
        let mut state = self.lock();
        if state.stopping {
            return Ok(None);
        }
        let child = command.spawn()?;
        state.pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Some(child))
    }

    /// Waits for the child's end and reaps it.
    fn reap(&self, child: &mut Child) -> std::io::Result<ExitStatus> {
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), ended), Err(rustix::io::Errno::INTR)) {}
        }
        let mut state = self.lock();
        state.pid = None;
        child.wait()
    }

    /// The child's status if it has ended.
    fn reap_if_ended(&self, child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
        let mut state = self.lock();
        let status = child.try_wait()?;
        if status.is_some() {
            state.pid = None;
        }
        Ok(status)
    }
}

type Started = Result<u16, ServerError>;

/// Starts the thread and waits until the server listens; gives the port, and what tells of the thread's end.
pub async fn start(
    supervisor: &Arc<Supervisor>,
    options: ServerOptions,
) -> Result<(u16, oneshot::Receiver<()>), ServerError> {
    let (started, starting) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let shared = Arc::clone(supervisor);
    let program = options.program.clone();
    thread::Builder::new()
        .name("nats-server".into())
        .spawn(move || {
            Worker { supervisor: shared, directory: config::directory(&options.data_dir), options }.run(started);
            drop(end);
        })
        .map_err(|source| ServerError::Spawn { program, source })?;
    let port = starting.await.unwrap_or(Err(ServerError::TimedOut(START_LIMIT)))?;
    Ok((port, ended))
}

/// The thread's own.
struct Worker {
    supervisor: Arc<Supervisor>,
    directory: PathBuf,
    options: ServerOptions,
}

impl Worker {
    fn run(self, started: oneshot::Sender<Started>) {
        let (keys, mut child, port) = match self.first_start() {
            Ok(first) => first,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        if started.send(Ok(port)).is_err() {
            self.supervisor.stop(true);
        }
        let mut pause = RESTART.0;
        loop {
            let begun = Instant::now();
            let status = self.supervisor.reap(&mut child);
            if self.supervisor.lock().stopping {
                return;
            }
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::error!(status, log = self.log_tail(), "nats-server ended, it is started again");
            metrics::counter!("caudal_broker_restarts_total").increment(1);
            if begun.elapsed() > HEALTHY {
                pause = RESTART.0;
            }
            let Some(again) = self.start_again(&keys, port, &mut pause) else { return };
            child = again;
        }
    }

    fn first_start(&self) -> Result<(Keys, Child, u16), ServerError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(|source| ServerError::File { path: self.directory.clone(), source })?;
        let keys = keys::load(&self.directory, self.options.spec.mqtt.is_some())?;
        self.write_config(&keys, None)?;
        let mut child = self.spawn()?.ok_or(ServerError::TimedOut(Duration::ZERO))?;
        let port = self.wait_for_port(&mut child);
        if port.is_err() {
            // Ended already, or hopeless.
            let _ = child.kill();
            let _ = self.supervisor.reap(&mut child);
        }
        let port = port?;
        self.write_config(&keys, Some(port))?;
        Ok((keys, child, port))
    }

    fn start_again(&self, keys: &Keys, port: u16, pause: &mut Duration) -> Option<Child> {
        loop {
            if !self.supervisor.pause(*pause) {
                return None;
            }
            *pause = (*pause * 2).min(RESTART.1);
            match self.write_config(keys, Some(port)).and_then(|()| self.spawn()) {
                Ok(child) => return child,
                Err(error) => tracing::error!(%error, "nats-server cannot be started again"),
            }
        }
    }

    fn write_config(&self, keys: &Keys, port: Option<u16>) -> Result<(), ServerError> {
        let path = config::file(&self.directory);
        let text = config::text(&self.options.spec, &self.directory, keys, self.options.max_file, port);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|source| ServerError::File { path, source })
    }

    fn spawn(&self) -> Result<Option<Child>, ServerError> {
        let said = self.said_file();
        let said = File::create(&said).map_err(|source| ServerError::File { path: said, source })?;
        let server = &self.options.program;
        let mut command = match self.options.launcher.split_first() {
            None => Command::new(server),
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments);
                command.arg(std::process::id().to_string()).arg(config::lock_file(&self.directory)).arg(server);
                command
            }
        };
        command
            .arg("-c")
            .arg(config::file(&self.directory))
            .env("GOMEMLIMIT", config::memory_limit(&self.options.spec))
            // Ctrl-C in the terminal is for us; the server ends when we have drained.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        let spawned = self.supervisor.spawn(&mut command);
        spawned.map_err(|source| ServerError::Spawn { program: command.get_program().into(), source })
    }

    /// Looks for the file in which the server says where it listens.
    fn wait_for_port(&self, child: &mut Child) -> Result<u16, ServerError> {
        let file = self.directory.join(format!("{}_{}.ports", self.program_name(), child.id()));
        let deadline = Instant::now() + START_LIMIT;
        let mut look = LOOK.0;
        loop {
            if let Some(port) = fs::read(&file).ok().and_then(|text| port_in(&text)) {
                return Ok(port);
            }
            let ended = self.supervisor.reap_if_ended(child);
            if let Some(status) = ended.map_err(|source| ServerError::File { path: file.clone(), source })? {
                return Err(self.why_ended(status));
            }
            if Instant::now() > deadline || !self.supervisor.pause(look) {
                return Err(ServerError::TimedOut(START_LIMIT));
            }
            look = (look * 2).min(LOOK.1);
        }
    }

    fn program_name(&self) -> String {
        self.options.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn why_ended(&self, status: ExitStatus) -> ServerError {
        if status.code() == Some(LOCKED.into()) {
            return ServerError::InUse(self.options.data_dir.clone());
        }
        let how = match status.signal() {
            Some(signal) => format!("signal {signal}"),
            None => status.to_string(),
        };
        ServerError::Ended { status: how, log: self.log_tail() }
    }

    fn said_file(&self) -> PathBuf {
        self.directory.join("nats.stderr")
    }

    /// The end of what the server said, to its log or before it had one.
    fn log_tail(&self) -> String {
        let said = tail(&self.said_file()).unwrap_or_default();
        let text = if said.is_empty() { tail(&config::log_file(&self.directory)).unwrap_or_default() } else { said };
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("; ")
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The port in `{"nats": ["nats://127.0.0.1:4222", …], …}`; `None` while the file is not complete.
fn port_in(text: &[u8]) -> Option<u16> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let ports: Ports = serde_json::from_slice(text).ok()?;
    ports.nats.first()?.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_once_the_file_is_complete() {
        assert_eq!(port_in(br#"{"nats": ["nats://127.0.0.1:41234", "nats://[::1]:41234"]}"#), Some(41_234));
        assert_eq!(port_in(br#"{"nats": ["nats://127.0.0.1:4"#), None);
        assert_eq!(port_in(br#"{"nats": []}"#), None);
        assert_eq!(port_in(b""), None);
    }
}
