//! The broker's disk is full: every stream that met it is named, refusals are fast, and the private server is restarted
//! when there is room.
//!
//! The disk is a small tmpfs in a mount namespace. The test runs itself again in one, in a process of its own.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nats::server::{PrivateServer, ServerError};
use nats::{ConnectOptions, JetStream, NatsSpec};
use pipeline::{OutcomeKind, Submission, SubmitAck, Transport};
use support::*;
use tokio::time::Instant;

/// Set in the process whose temporary folder is a small disk.
const SMALL_DISK: &str = "CAUDAL_TEST_SMALL_DISK";

/// Runs the test in a process with a small disk, and returns `None`; in that process, returns the disk's folder.
fn small_disk(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(SMALL_DISK) {
        return Some(folder.into());
    }
    let folder = tempfile::TempDir::new().unwrap();
    let mounted = r#"mount -t tmpfs -o size=24m tmpfs "$0" && exec "$@""#;
    let done = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", mounted])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(SMALL_DISK, folder.path())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{}\n{}", text(&done.stdout), text(&done.stderr));
    None
}

/// Fills the disk with a file, and returns its path.
fn fill(folder: &Path) -> PathBuf {
    let filler = folder.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let block = [0; 1 << 12];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    filler
}

async fn connect(server: &PrivateServer) -> Arc<JetStream> {
    let options = ConnectOptions::new(server.access(), topology(&[("f", 1_000), ("idle", 1_000)]));
    nats::connect(ConnectOptions { restarter: Some(server.restarter()), ..options }).await.unwrap()
}

/// Submits until the broker refuses an event, and returns that.
async fn submit_until_refused(transport: &JetStream) -> Submission {
    let body = "x".repeat(4_000);
    for index in 0..100 {
        let event = event("f", &format!("a{index}"), text(&body));
        if transport.submit(event.clone()).await.is_err() {
            return event;
        }
    }
    panic!("the disk is not full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_by_stream_and_heals_when_it_has_room() {
    let Some(folder) = small_disk("a_full_disk_is_named_by_stream_and_heals_when_it_has_room") else { return };
    let server = PrivateServer::start(options(&folder, NatsSpec::default())).await.unwrap();
    let transport = connect(&server).await;
    let beside = nats::connect(ConnectOptions::new(server.access(), topology(&[("f", 1_000)]))).await.unwrap();
    let before = server.pid();
    let filler = fill(&folder);
    let refused = submit_until_refused(&transport).await;
    assert!(!transport.is_writable("EV-f") && transport.is_writable("EV-idle"));
    for id in ["b", "c", "d"] {
        let begun = Instant::now();
        assert!(transport.submit(event("f", id, text("x"))).await.is_err());
        assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    }
    let error = format!("{:?}", transport.ready().await.unwrap_err());
    assert!(error.contains("EV-f"), "{error}");
    eventually("another process knows it", || async { !beside.is_writable("EV-f") }).await;
    // A stream that only another process writes to.
    let large = "x".repeat(4_000);
    eventually("results are refused", || async {
        let id = pipeline::Token::random();
        beside.publish_outcome(&id, &outcome(OutcomeKind::Data, 0, &large)).await.is_err()
    })
    .await;
    eventually("this process knows it", || async { !transport.is_writable("RES") }).await;
    assert_eq!(server.pid(), before, "restarted without room");

    std::fs::remove_file(filler).unwrap();
    eventually("all streams store", || async {
        transport.streams().iter().all(|(_, writable)| *writable) && transport.ready().await.is_ok()
    })
    .await;
    assert_ne!(server.pid(), before);
    assert_eq!(transport.submit(refused).await.unwrap(), SubmitAck::Stored);
    beside.publish_outcome(&token("r"), &outcome(OutcomeKind::Data, 0, "")).await.unwrap();
}

#[tokio::test]
async fn a_start_on_a_full_disk_says_so_at_once() {
    let Some(folder) = small_disk("a_start_on_a_full_disk_says_so_at_once") else { return };
    let filler = fill(&folder);
    let begun = Instant::now();
    let Err(error) = PrivateServer::start(options(&folder, NatsSpec::default())).await else { panic!("was started") };
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(matches!(error, ServerError::NoSpace { free: 0..4096, .. }), "{error}");
    assert!(error.to_string().contains("free space there"), "{error}");
    std::fs::remove_file(filler).unwrap();
    PrivateServer::start(options(&folder, NatsSpec::default())).await.unwrap().stop().await;
}
