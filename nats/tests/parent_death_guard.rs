//! The parent-death guard: only one server uses a store, and the server ends with the process that started it.
//!
//! This binary has a `main` of its own, because it is also the program through which the server is started.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nats::NatsSpec;
use nats::server::{PrivateServer, ServerError, ServerOptions, guard};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|first| first.to_str()) {
        Some("guard") => {
            let Err(error) = guard(arguments);
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
        Some("parent") => {
            let data_dir = PathBuf::from(arguments.next().unwrap());
            runtime().block_on(async {
                let server = PrivateServer::start(options(&data_dir)).await.unwrap();
                println!("{}", server.pid().unwrap());
                std::future::pending::<()>().await;
            });
            ExitCode::SUCCESS
        }
        // Cargo asks a test binary for a list.
        Some("--list") => ExitCode::SUCCESS,
        _ => {
            runtime().block_on(a_store_has_only_one_server());
            runtime().block_on(the_server_ends_with_its_parent());
            println!("parent_death_guard: 2 tests passed");
            ExitCode::SUCCESS
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn options(data_dir: &Path) -> ServerOptions {
    let program = std::env::var_os("CAUDAL_NATS_SERVER")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.caudal/bin/nats-server"), PathBuf::from);
    let launcher = vec![std::env::current_exe().unwrap().into_os_string(), OsString::from("guard")];
    ServerOptions { program, launcher, data_dir: data_dir.to_owned(), spec: NatsSpec::default() }
}

async fn a_store_has_only_one_server() {
    let dir = tempfile::TempDir::new().unwrap();
    let first = PrivateServer::start(options(dir.path())).await.unwrap();
    let Err(error) = PrivateServer::start(options(dir.path())).await else { panic!("two servers on one store") };
    assert!(matches!(&error, ServerError::InUse(path) if path == dir.path()), "{error}");
    assert!(error.to_string().contains("is in use by another caudal"), "{error}");
    // The lock ends with the server, so the store can be used again.
    first.stop().await;
    let again = PrivateServer::start(options(dir.path())).await.unwrap();
    again.stop().await;
}

async fn the_server_ends_with_its_parent() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .arg("parent")
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(parent.stdout.take().unwrap()), &mut line).unwrap();
    let server: u32 = line.trim().parse().unwrap();
    assert!(is_alive(server));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while is_alive(server) {
        assert!(tokio::time::Instant::now() < deadline, "the server outlived its parent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let again = PrivateServer::start(options(dir.path())).await.unwrap();
    again.stop().await;
}

/// Whether a process is running; a process that ended but was not reaped is not.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}
