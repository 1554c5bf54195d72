//! Starts processes of the program under test (`examples/victim`) on one broker, and kills, pauses and restarts them.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_rustls::rustls::crypto::ring;

/// How long a test waits before it fails.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between two checks of a condition.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Timeout of one request, longer than every timeout of the service.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);

/// Arguments of a gateway whose private broker accepts workers.
pub const GATEWAY: [&str; 4] = ["--role", "gateway", "--set", "nats.listen=127.0.0.1:0"];

/// Polls until `done` returns true; panics after [`TIMEOUT`].
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let deadline = Instant::now() + TIMEOUT;
    while !done().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The folder and config of a group of processes; outlives each of them.
pub struct Cluster {
    dir: TempDir,
    args: Vec<String>,
    bug: Option<&'static str>,
    environment: Vec<(&'static str, String)>,
}

impl Cluster {
    /// A cluster with a config of the repository and `--set` overrides.
    pub fn new(config: &str, set: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let mut args = vec![config.to_owned(), "--set".into(), "limits.enabled=false".into()];
        args.extend(set.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        Self { dir, args, bug: None, environment: Vec::new() }
    }

    /// Plants a bug in every process.
    pub fn with_bug(mut self, bug: &'static str) -> Self {
        self.bug = Some(bug);
        self
    }

    /// Sets an environment variable for every process.
    pub fn with_environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// The folder of marks, logs and data.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The data folder of the process that runs the broker.
    pub fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// Arms a kill point: the process that passes it for the `times`-th time from now on dies there.
    pub fn arm(&self, point: &str, flow: &str, times: u32) {
        let _ = std::fs::remove_file(self.folder().join("fired"));
        std::fs::write(self.folder().join("arm.new"), format!("{point} {flow} {times}")).unwrap();
        std::fs::rename(self.folder().join("arm.new"), self.folder().join("arm")).unwrap();
    }

    /// Whether a process died at the armed kill point.
    pub fn has_fired(&self) -> bool {
        self.folder().join("fired").exists()
    }

    /// The lines of a mark file.
    pub fn marks(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Starts one process with all roles.
    pub async fn start(&self) -> Process {
        self.start_as("all", &[]).await
    }

    /// Starts a process under a name, which also names its log and, unless it runs the broker, its data folder.
    pub async fn start_as(&self, name: &str, args: &[&str]) -> Process {
        let mut command = self.command(name, args);
        match Process::spawn(&mut command, &self.log_file(name)).await {
            Ok(process) => process,
            Err(why) => panic!("{name} is not ready: {why}\n{}", self.log(name)),
        }
    }

    /// The command that starts a process.
    pub fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        let data = if matches!(name, "all" | "gateway") { self.data() } else { self.folder().join(name) };
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .kill_on_drop(true)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("CAUDAL_VICTIM_FOLDER", self.folder())
            .arg("serve")
            .args(&self.args)
            .args(args)
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data);
        if let Some(bug) = self.bug {
            command.env("CAUDAL_VICTIM_BUG", bug);
        }
        command
    }

    /// Starts a gateway that runs the broker.
    pub async fn start_gateway(&self) -> Process {
        self.start_as("gateway", &GATEWAY).await
    }

    /// Starts a process that connects to the broker of the cluster.
    pub async fn start_beside(&self, name: &str, role: &str, more: &[&str]) -> Process {
        self.start_joining(&self.data(), name, role, more).await
    }

    /// Like [`start_beside`](Self::start_beside), with the broker's data folder at another path.
    pub async fn start_joining(&self, data: &Path, name: &str, role: &str, more: &[&str]) -> Process {
        let nats = data.join("nats");
        let url = format!("nats.url=nats://{}", crate::broker_client::address(&nats));
        let seed = format!("nats.nkey_seed_file={}", nats.join("caudal.nk").display());
        let mut args = vec!["--role", role, "--set", &url, "--set", &seed];
        args.extend(more);
        self.start_as(name, &args).await
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.log"))
    }

    /// The log of a process.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }

    /// Files of the data folder, except those inside JetStream and the index.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.data()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let store = path.ends_with("nats/jetstream") || path.ends_with("index");
                match path.is_dir() {
                    true if store => {}
                    true => folders.push(path),
                    // The running broker writes its ports there.
                    false if is_ports_file_of_running_broker(&path) => {}
                    false => found.push(path),
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for Cluster {
    /// Prints the end of each log if the test failed.
    fn drop(&mut self) {
        const SHOWN: usize = 6_000;
        if !std::thread::panicking() {
            return;
        }
        for entry in std::fs::read_dir(self.folder()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let end = text.floor_char_boundary(text.len().saturating_sub(SHOWN));
                eprintln!("--- {}\n{}", entry.path().display(), &text[end..]);
            }
        }
    }
}

/// Whether the file is `nats-server_PID.ports` of a running process.
fn is_ports_file_of_running_broker(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let pid = name.strip_suffix(".ports").and_then(|name| name.rsplit('_').next()?.parse().ok());
    pid.is_some_and(is_alive)
}

/// The program `examples/victim`, built beside the tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples/victim");
    assert!(program.is_file(), "build it first: cargo build --release --workspace --example victim");
    program
}

/// A running process.
pub struct Process {
    pub base: String,
    pub client: Client,
    pub pid: u32,
    child: Child,
}

impl Process {
    /// Starts the process and waits until it prints `ready`.
    pub async fn spawn(command: &mut Command, log: &Path) -> Result<Self, String> {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = tokio::time::timeout(TIMEOUT, lines.next_line()).await;
        let Ok(Ok(Some(line))) = first else { return Err(format!("{first:?}")) };
        let base = line.strip_prefix("ready ").ok_or(line.clone())?.to_owned();
        // Plain HTTP, but reqwest requires a TLS provider in any case.
        drop(ring::default_provider().install_default());
        let client = Client::builder().timeout(REQUEST_TIMEOUT).build().unwrap();
        Ok(Self { base, client, pid: child.id().unwrap(), child })
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.base))
    }

    /// Posts one file as a multipart form and waits for the answer.
    pub async fn post_file(&self, path: &str, field: &'static str, bytes: Vec<u8>) -> reqwest::Result<Response> {
        self.post(path).multipart(form(field, bytes)).send().await
    }

    /// A gauge or counter of `/metrics`, summed over all labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").send().await.unwrap().text().await.unwrap();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Status and body of `/ready`.
    pub async fn ready(&self) -> (u16, String) {
        let response = self.get("/ready").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub async fn json(&self, path: &str) -> Value {
        self.get(path).send().await.unwrap().json().await.unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// Kills the process with SIGKILL and waits until its children have ended.
    pub async fn kill(mut self) {
        let children = children(self.pid);
        self.child.kill().await.unwrap();
        wait_until_gone(&children).await;
    }

    /// Waits until the process and its children have ended.
    pub async fn wait_for_exit(mut self) -> ExitStatus {
        let children = children(self.pid);
        let status = tokio::time::timeout(TIMEOUT, self.child.wait()).await.expect("the process does not end").unwrap();
        wait_until_gone(&children).await;
        status
    }

    pub fn is_dead(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The pid of its broker.
    pub fn broker(&self) -> u32 {
        *children(self.pid).first().expect("the broker runs")
    }
}

pub fn form(field: &'static str, bytes: Vec<u8>) -> Form {
    Form::new().part(field, Part::bytes(bytes).file_name("photo"))
}

pub fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// The child processes (the broker). `/proc` lists them by the thread that started them.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listed = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    listed.flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

pub fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; its parent has not waited for it yet.
    !status.is_empty() && !status.contains(") Z ")
}

pub async fn wait_until_gone(pids: &[u32]) {
    eventually("children end with their parent", || async { !pids.iter().any(|pid| is_alive(*pid)) }).await;
}
