//! `caudal send`: a folder goes in once, failures are listed.

use serde_json::Value;

use crate::caudal::{Caudal, program};
use crate::pictures::{jpeg, scene};

async fn send(caudal: &Caudal, folder: &std::path::Path) -> (Option<i32>, Value) {
    let output = program()
        .arg("send")
        .arg(folder)
        .args(["--route", "/embeddings/index/{name}", "--to", &caudal.base, "--json"])
        .output()
        .await
        .unwrap();
    let summary = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code(), summary)
}

#[tokio::test]
async fn a_folder_is_sent_once_and_failures_are_listed() {
    let caudal = Caudal::petalert().await;
    let folder = tempfile::tempdir().unwrap();
    for number in 0..5 {
        std::fs::write(folder.path().join(format!("p{number}.jpg")), jpeg(&scene(number, 320, 240), 85)).unwrap();
    }
    std::fs::write(folder.path().join("page.jpg"), "<html></html>").unwrap();

    let (code, summary) = send(&caudal, folder.path()).await;
    assert_eq!(code, Some(1));
    assert_eq!(summary["sent"], 5);
    assert!(summary["failed"][0]["file"].as_str().unwrap().ends_with("page.jpg"));
    assert!(summary["failed"][0]["why"].as_str().unwrap().contains("HTML"), "{summary}");

    // Mended, only the mended one is sent.
    std::fs::write(folder.path().join("page.jpg"), jpeg(&scene(9, 320, 240), 85)).unwrap();
    let (code, summary) = send(&caudal, folder.path()).await;
    assert_eq!(code, Some(0));
    assert_eq!((summary["sent"].as_u64(), summary["skipped"].as_u64()), (Some(1), Some(5)));
}
