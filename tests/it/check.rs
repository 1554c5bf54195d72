//! `caudal check` and `caudal doctor`; the shipped configs are valid.

use serde_json::Value;

use crate::caudal::{checkout, program};

const FIVE_MISTAKES: &str = r#"
[service]
listn = "127.0.0.1:8080"

[model.photo]
source = "builtin:descriptor"

[[route]]
path = "/embeddings/generate"
flow = "descibe"
body = { multipart = "file", max_bytes = "10 MB" }

[flow.describe]
[[flow.describe.stage]]
use = "decode"

[[flow.describe.stage]]
use   = "embed"
model = "foto"

[[flow.describe.stage]]
use = "split"
part = "photo"
"#;

#[tokio::test]
async fn five_mistakes_are_five_problems_with_line_column_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    std::fs::write(&file, FIVE_MISTAKES).unwrap();
    let output = program().args(["check", "--json"]).arg(&file).output().await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    let problems: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let lines: Vec<u64> = problems.iter().map(|problem| problem["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [3, 10, 11, 19, 22], "{problems:#?}");
    for problem in &problems {
        assert_eq!(problem["file"], file.display().to_string());
        assert!(problem["column"].as_u64().unwrap() >= 1);
        assert!(!problem["remedy"].as_str().unwrap().is_empty(), "{problem}");
    }
    let text = program().arg("check").arg(&file).output().await.unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    for (line, what) in [(3, "listn"), (10, "descibe"), (11, "10 MB"), (19, "foto"), (22, "split takes parts")] {
        assert!(text.contains(&format!("wrong.toml:{line}:")), "{text}");
        assert!(text.contains(what), "{what}: {text}");
    }
    assert!(text.ends_with("5 problems\n"), "{text}");
}

#[tokio::test]
async fn the_shipped_configs_have_no_problems() {
    for entry in std::fs::read_dir(checkout().join("config")).unwrap() {
        let file = entry.unwrap().path();
        let output = program().arg("check").arg(&file).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let built_in = program().arg("check").current_dir("/").output().await.unwrap();
    assert!(built_in.status.success(), "{}", String::from_utf8_lossy(&built_in.stdout));
}

#[tokio::test]
async fn an_override_is_checked_like_a_file() {
    let output = program().args(["check", "--set", "service.listen=5"]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--set service.listen=5"), "{text}");
}

#[tokio::test]
async fn doctor_reports_versions_and_remedies() {
    let output = program().args(["doctor", "--json"]).output().await.unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let find = |name: &str| findings.iter().find(|finding| finding["part"] == name).unwrap();
    assert!(find("nats-server")["version"].as_str().unwrap().contains("2.15"));
    assert!(find("onnxruntime")["version"].as_str().unwrap().starts_with("1."));
    assert!(find("libreoffice")["version"].as_str().unwrap().contains('.'));
    assert_eq!(output.status.code(), Some(0));

    let missing = program().args(["doctor", "--json", "--nats-server", "/nowhere"]).output().await.unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let findings: Vec<Value> = serde_json::from_slice(&missing.stdout).unwrap();
    let broker = findings.iter().find(|finding| finding["part"] == "nats-server").unwrap();
    assert!(broker["remedy"].as_str().unwrap().contains("make setup"));
}

/// `caudal check` of a config, with more arguments.
async fn check(config: &str, args: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.toml");
    std::fs::write(&file, config).unwrap();
    program().arg("check").args(args).arg(&file).output().await.unwrap()
}

#[tokio::test]
async fn a_key_with_a_new_name_still_works_and_is_warned_of_with_its_line() {
    let config = "[office]\ninsist = false\n";
    let output = check(config, &["--json"]).await;
    assert_eq!(output.status.code(), Some(0));
    let warnings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((warnings.len(), &warnings[0]["severity"], &warnings[0]["line"]), (1, &"warning".into(), &2.into()));
    let text = String::from_utf8(check(config, &[]).await.stdout).unwrap();
    assert!(text.contains("require_sandbox") && text.contains("no problems"), "{text}");
}

#[tokio::test]
async fn an_index_kind_that_contradicts_its_keys_is_a_problem() {
    let output = check("[index]\nkind = \"embedded\"\nurl = \"http://127.0.0.1:6334\"\n", &[]).await;
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("url") && text.contains("qdrant"), "{text}");
}
