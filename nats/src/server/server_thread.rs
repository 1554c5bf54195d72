//! The thread that starts the server, waits for its end, and restarts it.
//!
//! It is one thread for the life of the server, because the kernel ends the child when the thread that started it ends.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::server::config;
use crate::server::disk_space::{DiskSpace, START_BYTES};
use crate::server::error::ServerError;
use crate::server::keys::{self, Keys};
use crate::server::options::ServerOptions;
use crate::server::parent_death_guard::LOCKED;
use crate::server::supervisor::Supervisor;

/// How long the server may take until it listens; it reads a large store first.
const START_TIMEOUT: Duration = Duration::from_secs(300);
/// Shortest and longest pause between looks for the ports file, which appears 10 to 40 ms after the start.
const PORT_PAUSE: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(100));
/// Shortest and longest pause before the server is restarted.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));
/// After the server has run for this long, the pause starts again at the shortest.
const HEALTHY: Duration = Duration::from_secs(10);
/// Bytes of log shown if the server does not start.
const LOG_TAIL: u64 = 1 << 10;

/// The port, once the server listens.
type StartResult = Result<u16, ServerError>;

/// Starts the thread and waits until the server listens. Returns the port, and a receiver that closes when the thread
/// ends.
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
            let directory = config::directory(&options.data_dir);
            ServerThread { supervisor: shared, directory, options, log_begins: Cell::new(0) }.run(started);
            drop(end);
        })
        .map_err(|source| ServerError::Spawn { program, source })?;
    let port = starting.await.unwrap_or(Err(ServerError::TimedOut(START_TIMEOUT)))?;
    Ok((port, ended))
}

/// The state of the thread.
struct ServerThread {
    supervisor: Arc<Supervisor>,
    directory: PathBuf,
    options: ServerOptions,
    /// Length of the log when the server was last started: what is before that is of earlier ones.
    log_begins: Cell<u64>,
}

impl ServerThread {
    fn run(self, started: oneshot::Sender<StartResult>) {
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
        let mut pause = RESTART_PAUSE.0;
        loop {
            let begun = Instant::now();
            let status = self.supervisor.reap(&mut child);
            if self.supervisor.is_stopping() {
                return;
            }
            self.report_end(status, self.supervisor.take_restarting());
            if begun.elapsed() > HEALTHY {
                pause = RESTART_PAUSE.0;
            }
            let Some(again) = self.restart(&keys, port, &mut pause) else { return };
            child = again;
        }
    }

    /// Logs and counts that the server has ended.
    fn report_end(&self, status: std::io::Result<ExitStatus>, asked: bool) {
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        if asked {
            tracing::info!(status, "nats-server ended as it was asked to, starting it again");
        } else {
            tracing::error!(status, log = self.log_tail(), "nats-server ended unexpectedly, restarting it");
        }
        let reason = if asked { "refused_writes" } else { "ended" };
        metrics::counter!("caudal_broker_restarts_total", "reason" => reason).increment(1);
    }

    fn first_start(&self) -> Result<(Keys, Child, u16), ServerError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(|source| ServerError::File { path: self.directory.clone(), source })?;
        self.check_program()?;
        self.check_space()?;
        let keys = keys::load(&self.directory, self.options.spec.mqtt.is_some())?;
        self.write_config(&keys, None)?;
        let mut child = self.spawn()?.ok_or(ServerError::TimedOut(Duration::ZERO))?;
        let port = self.wait_for_port(&mut child);
        if port.is_err() {
            // It has ended already, or will never listen.
            let _ = child.kill();
            let _ = self.supervisor.reap(&mut child);
        }
        let port = port?;
        self.write_config(&keys, Some(port))?;
        Ok((keys, child, port))
    }

    fn restart(&self, keys: &Keys, port: u16, pause: &mut Duration) -> Option<Child> {
        loop {
            if !self.supervisor.pause(*pause) {
                return None;
            }
            *pause = (*pause * 2).min(RESTART_PAUSE.1);
            match self.write_config(keys, Some(port)).and_then(|()| self.spawn()) {
                Ok(child) => return child,
                Err(error) => tracing::error!(%error, "nats-server cannot be restarted, trying again"),
            }
        }
    }

    fn write_config(&self, keys: &Keys, port: Option<u16>) -> Result<(), ServerError> {
        let path = config::file(&self.directory);
        let text = config::text(&self.options.spec, &self.directory, keys, port);
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
        let path = self.stderr_file();
        self.log_begins.set(fs::metadata(config::log_file(&self.directory)).map_or(0, |log| log.len()));
        let stderr = File::create(&path).map_err(|source| ServerError::File { path, source })?;
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
            // Ctrl-C in the terminal must reach only us: we stop the server after draining.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let spawned = self.supervisor.spawn(&mut command);
        spawned.map_err(|source| ServerError::Spawn { program: command.get_program().into(), source })
    }

    /// Waits for the file in which the server reports its port.
    fn wait_for_port(&self, child: &mut Child) -> Result<u16, ServerError> {
        let file = self.directory.join(format!("{}_{}.ports", self.program_name(), child.id()));
        let deadline = Instant::now() + START_TIMEOUT;
        let mut pause = PORT_PAUSE.0;
        loop {
            if let Some(port) = fs::read(&file).ok().and_then(|text| port_in(&text)) {
                return Ok(port);
            }
            let ended = self.supervisor.reap_if_ended(child);
            if let Some(status) = ended.map_err(|source| ServerError::File { path: file.clone(), source })? {
                return Err(self.start_error(status));
            }
            if file.exists() {
                // The file is there without a port in it: what the server wrote last, or cannot write.
                self.check_space()?;
            }
            if Instant::now() > deadline || !self.supervisor.pause(pause) {
                return Err(ServerError::TimedOut(START_TIMEOUT));
            }
            pause = (pause * 2).min(PORT_PAUSE.1);
        }
    }

    /// Says what is wrong with a path that somebody gave. A bare name is looked up when it is started.
    fn check_program(&self) -> Result<(), ServerError> {
        let program = &self.options.program;
        let is_name = program.components().count() == 1 && !program.is_absolute();
        let why = match fs::metadata(program) {
            _ if is_name => return Ok(()),
            Err(error) => error.to_string(),
            Ok(found) if !found.is_file() => "it is not a file".to_owned(),
            Ok(found) if found.permissions().mode() & 0o111 == 0 => "the file is not executable".to_owned(),
            Ok(_) => return Ok(()),
        };
        Err(ServerError::Program { program: program.clone(), why })
    }

    /// On a full disk the server starts, but neither reports its port nor stores anything.
    fn check_space(&self) -> Result<(), ServerError> {
        let path = self.directory.clone();
        match DiskSpace::of(&path) {
            Ok(space) if space.free < START_BYTES => {
                Err(ServerError::NoSpace { path, free: space.free, needed: START_BYTES })
            }
            Ok(_) => Ok(()),
            Err(source) => Err(ServerError::File { path, source }),
        }
    }

    fn program_name(&self) -> String {
        self.options.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn start_error(&self, status: ExitStatus) -> ServerError {
        if status.code() == Some(LOCKED.into()) {
            return ServerError::InUse(self.options.data_dir.clone());
        }
        let how = match status.signal() {
            Some(signal) => format!("signal {signal}"),
            None => status.to_string(),
        };
        let log = self.log_tail();
        let log = if log.is_empty() { "it wrote no log; is it nats-server?".to_owned() } else { log };
        ServerError::Ended { program: self.options.program.clone(), status: how, log }
    }

    fn stderr_file(&self) -> PathBuf {
        self.directory.join("nats.stderr")
    }

    /// The last lines of the server's standard error; of its log since the start, if the standard error is empty.
    fn log_tail(&self) -> String {
        let stderr = tail(&self.stderr_file(), 0).unwrap_or_default();
        let log = || tail(&config::log_file(&self.directory), self.log_begins.get()).unwrap_or_default();
        let text = if stderr.is_empty() { log() } else { stderr };
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("; ")
    }
}

/// The end of a file, and nothing before `begin`. A file that is shorter has been replaced by another one.
fn tail(path: &Path, begin: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let begin = if begin > length { 0 } else { begin };
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL).max(begin)))?;
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
