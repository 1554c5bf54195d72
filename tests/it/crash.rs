//! Crash recovery: after SIGKILL accepted requests are done once, and no broker process is left behind.

use std::collections::HashSet;

use serde_json::Value;

use crate::caudal::{Caudal, TIMEOUT, descendants, wait_until_gone};
use crate::test_images::{jpeg, scene};

const UPLOADS: u32 = 200;

#[tokio::test]
async fn requests_accepted_before_a_kill_are_done_once_after_restart() {
    let caudal = Caudal::petalert().await;
    let mut accepted = Vec::new();
    for number in 0..UPLOADS {
        // Every tenth photo is too large for its message and is stored as a claim.
        let side = if number % 10 == 0 { 1600 } else { 200 };
        let photo = jpeg(&scene(number, side, side * 3 / 4), 95);
        accepted.push(caudal.post_later(&format!("/embeddings/index/r{number}"), photo).await);
    }
    let children: Vec<u32> = descendants(caudal.pid()).into_iter().skip(1).collect();
    assert!(!children.is_empty(), "the broker is a child process");
    let flows: Value = caudal.get("/v1/flows").await.json().await.unwrap();
    let folder = caudal.kill().await;
    wait_until_gone(&children).await;
    let done_before = flows["flows"].as_array().unwrap().iter().map(|flow| flow["done"].as_u64().unwrap()).sum::<u64>();
    assert!(done_before < u64::from(UPLOADS), "the kill came too late: everything was already done");

    let caudal = Caudal::serve(folder, &["config/petalert.toml", "--set", "limits.enabled=false"]).await;
    for id in &accepted {
        let request = caudal.result(id).await;
        assert_eq!(request["status"], "done", "{request}");
    }
    let stream = caudal.get(&format!("/v1/requests/{}/events", accepted[0])).await.text().await.unwrap();
    assert_eq!(stream.matches("event: done").count(), 1, "{stream}");

    // Every report is in the index exactly once.
    let probe = caudal.post_file("/embeddings/search_image?limit=100", jpeg(&scene(0, 200, 150), 95)).await;
    let found: Value = probe.json().await.unwrap();
    let ids: Vec<&str> =
        found["matches"].as_array().unwrap().iter().map(|m| m["report_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 100);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 100);
}

#[tokio::test]
async fn a_broker_that_dies_is_restarted_and_the_service_recovers() {
    let caudal = Caudal::petalert().await;
    let photo = jpeg(&scene(1, 320, 240), 85);
    assert_eq!(caudal.post_file("/embeddings/generate", photo.clone()).await.status(), 200);
    let children: Vec<u32> = descendants(caudal.pid()).into_iter().skip(1).collect();
    for pid in &children {
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
    wait_until_gone(&children).await;
    let poll = async {
        loop {
            let response = caudal.post_file("/embeddings/generate", photo.clone()).await;
            if response.status() == 200 {
                return;
            }
            assert_eq!(response.status(), 503, "unavailable while the broker restarts");
        }
    };
    tokio::time::timeout(TIMEOUT, poll).await.expect("the service recovers");
}

#[tokio::test]
async fn sigterm_stops_the_service_and_its_broker_cleanly() {
    let mut caudal = Caudal::petalert().await;
    let children: Vec<u32> = descendants(caudal.pid()).into_iter().skip(1).collect();
    let id = caudal.post_later("/embeddings/generate", jpeg(&scene(1, 640, 480), 85)).await;
    assert!(!id.is_empty());
    std::process::Command::new("kill").args(["-TERM", &caudal.pid().to_string()]).status().unwrap();
    let status = tokio::time::timeout(TIMEOUT, caudal.child.wait()).await.expect("the service stops").unwrap();
    assert!(status.success(), "{status}\n{}", caudal.log());
    wait_until_gone(&children).await;
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused() {
    let caudal = Caudal::petalert().await;
    let data = caudal.data_dir();
    let output = crate::caudal::program()
        .args(["serve", "config/petalert.toml", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .output();
    let output = tokio::time::timeout(TIMEOUT, output).await.expect("the second process exits").unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("in use"), "{text}");
    assert_eq!(caudal.get("/ready").await.status(), 200, "the first process is unaffected");
}
