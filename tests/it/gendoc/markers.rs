//! Many at once, while workers are killed: everybody gets their own document.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::docx::{docx, gendoc, good, put, read_pdf, render};
use crate::caudal::{Caudal, descendants};

const CLIENTS: usize = 8;
const DOCUMENTS: usize = 50;
/// Between two kills.
const PAUSE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_anothers_document_while_workers_are_killed() {
    let caudal = Arc::new(gendoc(&["--set", "office.workers=2"]).await);
    put(&caudal, "letter", docx(&["Dear {{ name }}", "yours, {{ name }}"])).await;
    let (done, kills) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
    let killer = tokio::spawn(kill_workers(caudal.pid(), done.clone(), Arc::clone(&kills)));
    let clients: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(ask(Arc::clone(&caudal), client))).collect();
    for client in clients {
        client.await.unwrap();
    }
    done.cancel();
    killer.await.unwrap();
    assert!(kills.load(Ordering::Relaxed) >= 3, "too few workers were killed to tell anything");
}

async fn ask(caudal: Arc<Caudal>, client: usize) {
    for number in 0..DOCUMENTS {
        let marker = format!("marker{client:02}x{number:03}end");
        let answer = render(&caudal, "letter", "", &json!({ "name": marker })).await;
        let (pages, text) = read_pdf(&good(answer, "application/pdf").await);
        assert_eq!(pages, 1);
        assert_eq!(text.matches("marker").count(), 2, "{text}");
        assert_eq!(text.matches(&marker).count(), 2, "{text}");
    }
}

/// Kills one worker after the other, the oldest first.
async fn kill_workers(service: u32, done: CancellationToken, kills: Arc<AtomicU32>) {
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        let Some(worker) = descendants(service).into_iter().find(|pid| is_worker(*pid)) else { continue };
        let Some(pid) = i32::try_from(worker).ok().and_then(Pid::from_raw) else { continue };
        if kill_process(pid, Signal::KILL).is_ok() {
            kills.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn is_worker(pid: u32) -> bool {
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split('\0').any(|word| word == "office-worker")
}
