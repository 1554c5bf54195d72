//! Concurrent clients while LibreOffice workers are killed: each client gets its own document.

use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::sync::watch;

use super::fixtures::{body_of, docx, gendoc, put, read_pdf, render};
use crate::caudal::{Caudal, descendants};

const CLIENTS: usize = 8;
const DOCUMENTS: usize = 50;
/// Documents between two kills: one or two seconds of work for two processors.
const DOCUMENTS_PER_KILL: usize = 25;

/// Number of documents that each client has received.
type Progress = [usize; CLIENTS];

/// A conversion is retried once after its worker dies. So the next kill waits until every client has received the
/// document that it was waiting for at the last one.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_gets_its_own_document_while_workers_are_killed() {
    let caudal = Arc::new(gendoc(&["--set", "office.workers=2"]).await);
    put(&caudal, "letter", docx(&["Dear {{ name }}", "yours, {{ name }}"])).await;
    let progress = watch::Sender::new(Progress::default());
    let killer = tokio::spawn(kill_workers(caudal.pid(), progress.subscribe()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(request_documents(Arc::clone(&caudal), client, progress.clone())))
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert!(killer.await.unwrap() >= 10, "too few workers were killed");
}

async fn request_documents(caudal: Arc<Caudal>, client: usize, progress: watch::Sender<Progress>) {
    for number in 0..DOCUMENTS {
        let marker = format!("marker{client:02}x{number:03}end");
        let answer = render(&caudal, "letter", "", &json!({ "name": marker })).await;
        let (pages, text) = read_pdf(&body_of(answer, "application/pdf").await);
        assert_eq!(pages, 1);
        assert_eq!(text.matches("marker").count(), 2, "{text}");
        assert_eq!(text.matches(&marker).count(), 2, "{text}");
        progress.send_modify(|progress| progress[client] += 1);
    }
}

/// Kills the oldest worker repeatedly until all documents have arrived. Returns the number of kills.
async fn kill_workers(service: u32, mut progress: watch::Receiver<Progress>) -> usize {
    let mut kills = 0;
    loop {
        let before = *progress.borrow_and_update();
        let goal = |now: &Progress| {
            let all = now.iter().zip(before).all(|(now, before)| *now > before || *now == DOCUMENTS);
            all && (now.iter().sum::<usize>() >= before.iter().sum::<usize>() + DOCUMENTS_PER_KILL
                || *now == [DOCUMENTS; CLIENTS])
        };
        let now = *progress.wait_for(goal).await.unwrap();
        if now == [DOCUMENTS; CLIENTS] {
            return kills;
        }
        let Some(worker) = descendants(service).into_iter().find(|pid| is_worker(*pid)) else { continue };
        let Some(pid) = i32::try_from(worker).ok().and_then(Pid::from_raw) else { continue };
        kills += usize::from(kill_process(pid, Signal::KILL).is_ok());
    }
}

fn is_worker(pid: u32) -> bool {
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split('\0').any(|word| word == "office-worker")
}
