//! `caudal send` while the service, or `send` itself, is killed: every file has one result, and none is sent twice.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;

use crate::broker_client::Broker;
use crate::caudal::{Caudal, Folder, program};
use crate::test_images::{jpeg, scene};

const FILES: usize = 60;

/// Answers after which something is killed.
const KILLS: [usize; 3] = [10, 25, 40];

/// What was in flight when a service died comes back after the broker's wait for its acknowledgement.
const LIMIT: Duration = Duration::from_secs(240);

const SERVICE: [&str; 3] = ["config/petalert.toml", "--set", "limits.enabled=false"];

fn photos() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..FILES {
        let photo = jpeg(&scene(u32::try_from(number).unwrap(), 320, 240), 85);
        std::fs::write(folder.path().join(format!("p{number}.jpg")), photo).unwrap();
    }
    folder
}

fn send(caudal: &Caudal, photos: &Path) -> Child {
    let mut command = program();
    command.arg("send").arg(photos).args(["--route", "/embeddings/index/{name}", "--to", &caudal.base, "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

async fn output(send: Child) -> Output {
    tokio::time::timeout(LIMIT, send.wait_with_output()).await.expect("send ends").unwrap()
}

fn summary(output: &Output) -> Value {
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(summary["failed"], json!([]));
    assert_eq!(output.status.code(), Some(0));
    summary
}

/// Number of files that the journal has as answered.
fn answered(photos: &Path) -> usize {
    let journal = std::fs::read_to_string(photos.join(".caudal-send.jsonl")).unwrap_or_default();
    journal.lines().filter(|line| line.starts_with("{\"target\"")).count()
}

/// Waits until a number of files are answered. Some must not be, or the kill that follows proves nothing.
async fn wait_for(photos: &Path, files: usize) {
    let poll = async {
        while answered(photos) < files {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LIMIT, poll).await.unwrap_or_else(|_| panic!("{} of {files} are answered", answered(photos)));
    assert!(answered(photos) < FILES, "everything was sent before the kill");
}

/// Checks that each file has led to one request with one result.
async fn assert_one_result_per_file(caudal: &Caudal) {
    let ends = Broker::open(&caudal.data_dir()).await.ends().await;
    assert_eq!(ends.len(), FILES);
    assert!(ends.values().all(|count| *count == 1), "{ends:?}");
}

#[tokio::test]
async fn a_folder_is_sent_over_three_restarts_of_the_service() {
    let mut caudal = Caudal::serve(Folder::new(), &SERVICE).await;
    let photos = photos();
    let sending = send(&caudal, photos.path());
    for files in KILLS {
        wait_for(photos.path(), files).await;
        caudal = caudal.restart(&SERVICE).await;
    }
    let sent = output(sending).await;
    assert_eq!(summary(&sent)["sent"], FILES);
    let told = String::from_utf8_lossy(&sent.stderr);
    assert!(told.contains("the service cannot be reached"), "no call met a restart: {told}");
    assert_one_result_per_file(&caudal).await;

    let again = summary(&output(send(&caudal, photos.path())).await);
    assert_eq!((again["sent"].as_u64(), again["skipped"].as_u64()), (Some(0), Some(FILES as u64)));
}

#[tokio::test]
async fn a_run_that_was_killed_is_resumed_without_a_repeat() {
    let caudal = Caudal::serve(Folder::new(), &SERVICE).await;
    let photos = photos();
    for files in KILLS {
        let mut sending = send(&caudal, photos.path());
        wait_for(photos.path(), files).await;
        sending.kill().await.unwrap();
    }
    let before = answered(photos.path());
    let rest = summary(&output(send(&caudal, photos.path())).await);
    assert_eq!(rest["sent"].as_u64(), Some((FILES - before) as u64));
    assert_one_result_per_file(&caudal).await;
}
