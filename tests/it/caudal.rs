//! Test harness: runs the built `caudal` program on a free port with its own data folder, and stops it when the test
//! ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Client, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_rustls::rustls::crypto::ring;

/// How long a test waits before it fails.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A running `caudal serve` process.
pub struct Caudal {
    pub base: String,
    pub client: Client,
    pub child: Child,
    folder: Folder,
}

/// The folder of a service: data, config and log. It outlives the process in tests that restart it.
pub struct Folder {
    _dir: TempDir,
    path: PathBuf,
}

impl Folder {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self { path: dir.path().to_path_buf(), _dir: dir }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The repository, which has the configs and what `make setup` installed.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A command that runs the program in the repository's folder.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caudal"));
    command.current_dir(checkout()).kill_on_drop(true);
    command
}

impl Caudal {
    /// `caudal serve` with PetAlert's config.
    pub async fn petalert() -> Self {
        Self::serve(Folder::new(), &["config/petalert.toml", "--set", "limits.enabled=false"]).await
    }

    /// `caudal serve` with the given arguments; returns once it prints `ready`.
    pub async fn serve(folder: Folder, args: &[&str]) -> Self {
        Self::serve_with(folder, args, &[]).await
    }

    /// Like [`serve`](Self::serve), with secrets in the environment.
    pub async fn serve_with(folder: Folder, args: &[&str], secrets: &[(&str, &str)]) -> Self {
        Self::serve_at("127.0.0.1:0", folder, args, secrets).await
    }

    /// Kills the service with SIGKILL and starts it again with the same data, at the same address.
    pub async fn restart(self, args: &[&str]) -> Self {
        let children: Vec<u32> = descendants(self.pid()).into_iter().skip(1).collect();
        let listen = self.base.strip_prefix("http://").unwrap().to_owned();
        let folder = self.kill().await;
        wait_until_gone(&children).await;
        Self::serve_at(&listen, folder, args, &[]).await
    }

    async fn serve_at(listen: &str, folder: Folder, args: &[&str], secrets: &[(&str, &str)]) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
        let mut child = program()
            .envs(secrets.iter().copied())
            .arg("serve")
            .args(args)
            .args(["--listen", listen, "--data-dir"])
            .arg(folder.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = tokio::time::timeout(TIMEOUT, lines.next_line()).await;
        let Ok(Ok(Some(line))) = first else {
            panic!("not ready: {first:?}\n{}", std::fs::read_to_string(folder.path().join("log")).unwrap());
        };
        let base = line.strip_prefix("ready ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { base, client: plain_client(), child, folder }
    }

    /// The path of a file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    /// Posts one file as the form field `file`.
    pub async fn post_file(&self, path: &str, bytes: Vec<u8>) -> Response {
        self.client.post(self.url(path)).multipart(form(bytes)).send().await.unwrap()
    }

    /// Posts one file with `Prefer: respond-async` and returns the request's id.
    pub async fn post_later(&self, path: &str, bytes: Vec<u8>) -> String {
        let request = self.client.post(self.url(path)).header("prefer", "respond-async").multipart(form(bytes));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 202);
        let accepted: Value = response.json().await.unwrap();
        accepted["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the request has ended, and returns it.
    pub async fn result(&self, id: &str) -> Value {
        let poll = async {
            loop {
                let request: Value = self.get(&format!("/v1/requests/{id}")).await.json().await.unwrap();
                if matches!(request["status"].as_str(), Some("done" | "failed" | "cancelled")) {
                    return request;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, poll).await.unwrap_or_else(|_| panic!("{id} never ended\n{}", self.log()))
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Kills the process with SIGKILL and returns its folder.
    pub async fn kill(mut self) -> Folder {
        self.child.kill().await.unwrap();
        self.folder
    }

    /// Stops the process as an init system does, and returns its folder.
    pub async fn stop(mut self) -> Folder {
        kill_process(Pid::from_raw(self.pid() as i32).unwrap(), Signal::TERM).unwrap();
        let ended = tokio::time::timeout(TIMEOUT, self.child.wait()).await;
        assert!(ended.expect("it stops").unwrap().success(), "{}", self.log());
        self.folder
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }
}

fn form(bytes: Vec<u8>) -> Form {
    Form::new().part("file", Part::bytes(bytes).file_name("photo"))
}

/// Resident memory of a process and all its descendants, in bytes.
pub fn tree_memory(pid: u32) -> u64 {
    descendants(pid).iter().map(|pid| resident(*pid)).sum()
}

/// An HTTP client. Plain HTTP, but reqwest requires a TLS provider in any case.
pub fn plain_client() -> Client {
    drop(ring::default_provider().install_default());
    Client::new()
}

/// The pids of a process and all its descendants.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut tree = vec![pid];
    let mut next = 0;
    while next < tree.len() {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", tree[next])).unwrap_or_default();
        tree.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        // Children belong to the thread that started them.
        let threads = std::fs::read_dir(format!("/proc/{}/task", tree[next])).into_iter().flatten().flatten();
        for thread in threads {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
                if !tree.contains(&child) {
                    tree.push(child);
                }
            }
        }
        next += 1;
    }
    tree
}

fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; its parent has not waited for it yet.
    !status.is_empty() && !status.contains(") Z ")
}

/// Waits until these processes have ended.
pub async fn wait_until_gone(pids: &[u32]) {
    let poll = async {
        while pids.iter().any(|pid| is_alive(*pid)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, poll).await.expect("the broker ends with its parent");
}

/// Resident memory of one process, in bytes.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}
