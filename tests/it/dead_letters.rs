//! Dead letters: a failed event is stored with its cause and can be retried once the cause is fixed.

use serde_json::Value;

use crate::caudal::{Caudal, Folder, program};
use crate::test_images::{jpeg, scene};

/// A flow whose decoder has a timeout of `timeout_ms` and one attempt.
fn config(timeout_ms: u32) -> String {
    format!(
        r#"
[model.photo]
source = "builtin:descriptor"

[flow.describe]
open  = true
retry = {{ attempts = 1 }}

[[flow.describe.stage]]
use        = "decode"
timeout_ms = {timeout_ms}

[[flow.describe.stage]]
use   = "embed"
model = "photo"

[[flow.describe.stage]]
use = "respond"
"#
    )
}

async fn serve(folder: Folder, timeout_ms: u32) -> Caudal {
    let file = folder.path().join("describe.toml");
    std::fs::write(&file, config(timeout_ms)).unwrap();
    let file = file.display().to_string();
    Caudal::serve(folder, &[&file]).await
}

/// Runs `caudal dead` and returns its JSON output.
async fn dead(caudal: &Caudal, args: &[&str]) -> Value {
    let output = program().arg("dead").args(args).args(["--json", "--to", &caudal.base]).output().await.unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

#[tokio::test]
async fn a_dead_letter_is_listed_shown_retried_and_dropped() {
    let caudal = serve(Folder::new(), 1).await;
    let photo = jpeg(&scene(1, 3000, 2000), 95);
    assert!(photo.len() > 256 << 10, "large enough to be stored as a claim");
    for _ in 0..2 {
        let request = caudal.client.post(caudal.url("/v1/flows/describe")).header("content-type", "image/jpeg");
        let response = request.body(photo.clone()).send().await.unwrap();
        assert_eq!(response.status(), 500);
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["code"], "gave_up", "{problem}");
    }
    let letters = dead(&caudal, &["list", "--flow", "describe"]).await;
    let letters = letters.as_array().unwrap();
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert_eq!(letters[0]["stage"], "decode");
    assert_eq!(letters[0]["attempts"], 1);
    assert_eq!(letters[0]["payload_bytes"], photo.len());
    let ids: Vec<String> = letters.iter().map(|letter| letter["id"].to_string()).collect();
    assert_eq!(dead(&caudal, &["list", "--flow", "other"]).await, serde_json::json!([]));

    // A new process, with the cause fixed: the dead letters are read from the broker.
    let caudal = serve(caudal.kill().await, 30_000).await;
    let shown = dead(&caudal, &["show", &ids[0]]).await;
    assert_eq!(shown["cause"]["code"], "gave_up");
    let started = dead(&caudal, &["retry", &ids[0]]).await;
    let request = caudal.result(started["id"].as_str().unwrap()).await;
    assert_eq!(request["status"], "done", "{request}");
    dead(&caudal, &["drop", &ids[1]]).await;
    assert_eq!(dead(&caudal, &["list"]).await, serde_json::json!([]));

    let response = caudal.client.post(caudal.url(&format!("/v1/dead-letters/{}/retry", ids[1]))).send().await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(caudal.get("/v1/dead-letters/x").await.status(), 400);
}
