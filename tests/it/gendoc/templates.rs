//! Template storage: upload, versions, list, delete, and persistence across a kill.

use serde_json::{Value, json};

use super::fixtures::{body_of, document_part, docx, gendoc, gendoc_in, letter, problem_of, put, render};

const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";

#[tokio::test]
async fn template_versions_are_stored_and_survive_a_kill() {
    let caudal = gendoc(&[]).await;
    let first: Value = put(&caudal, "letter", letter()).await.json().await.unwrap();
    assert_eq!((&first["name"], &first["kind"]), (&json!("letter"), &json!("docx")));
    assert_eq!(first["fields"], json!(["items", "name"]));
    let again: Value = put(&caudal, "letter", letter()).await.json().await.unwrap();
    assert_eq!(again, first, "the same bytes are the same version");
    let second: Value = put(&caudal, "letter", docx(&["Hello {{ who.name }}"])).await.json().await.unwrap();
    assert_ne!(second["sha256"], first["sha256"]);
    assert_eq!((second["versions"].as_array().unwrap().len(), &second["fields"]), (2, &json!(["who.name"])));

    let folder = caudal.kill().await;
    let caudal = gendoc_in(folder, &[]).await;
    let listed: Value = caudal.get("/templates").await.json().await.unwrap();
    assert_eq!(listed["templates"][0]["sha256"], second["sha256"]);
    let shown: Value = caudal.get("/templates/letter").await.json().await.unwrap();
    assert_eq!(shown, second);
    assert_eq!(body_of(caudal.get("/templates/letter/file").await, DOCX).await, docx(&["Hello {{ who.name }}"]));
    let of_version = |version: &str| format!("/templates/letter/file?version={version}");
    let oldest = caudal.get(&of_version(first["sha256"].as_str().unwrap())).await;
    assert_eq!(body_of(oldest, DOCX).await, letter());
    assert_eq!(problem_of(caudal.get(&of_version(&"0".repeat(64))).await, 404).await.0, "unknown_version");
    let filled = render(&caudal, "letter", "?format=docx", &json!({ "who": { "name": "Ada" } })).await;
    assert!(document_part(&body_of(filled, DOCX).await).contains("Hello Ada"));
    let older = format!("?format=docx&version={}", first["sha256"].as_str().unwrap());
    let filled = render(&caudal, "letter", &older, &json!({ "name": "Bo", "items": ["rent"] })).await;
    let text = document_part(&body_of(filled, DOCX).await);
    assert!(text.contains("Dear Bo") && text.contains("rent is due"), "{text}");

    let delete = || caudal.client.delete(caudal.url("/templates/letter")).send();
    assert_eq!(delete().await.unwrap().status(), 200);
    assert_eq!(problem_of(delete().await.unwrap(), 404).await.0, "unknown_template");
    assert_eq!(caudal.get("/templates/letter").await.status(), 404);
    let listed: Value = caudal.get("/templates").await.json().await.unwrap();
    assert_eq!(listed, json!({ "templates": [] }));
}

#[tokio::test]
async fn an_invalid_template_is_refused_on_upload() {
    let caudal = gendoc(&[]).await;
    let (wrong, detail) = problem_of(put(&caudal, "x", docx(&["fine", "{% if a %} no end"])).await, 400).await;
    assert_eq!(wrong, "template_syntax");
    assert!(detail.contains("word/document.xml"), "{detail}");
    let (wrong, _) = problem_of(put(&caudal, "x", b"PK\x03\x04 and nothing".to_vec()).await, 422).await;
    assert!(!wrong.is_empty());
    assert_eq!(problem_of(put(&caudal, "a%20b", letter()).await, 400).await.0, "bad_parameter");
    assert_eq!(caudal.get("/templates/x").await.status(), 404);
}
