//! Without LibreOffice what needs none works, and what to install is said.

use serde_json::{Value, json};

use super::docx::{code, document_part, docx, gendoc, good, put, render};

#[tokio::test]
async fn a_machine_without_libreoffice_still_fills_templates() {
    let caudal = gendoc(&["--set", "office.path=/nowhere"]).await;
    assert!(caudal.log().contains("apt-get install libreoffice-writer-nogui"), "{}", caudal.log());
    put(&caudal, "letter", docx(&["Dear {{ name }}"])).await;
    let media_type = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
    let filled = good(render(&caudal, "letter", "?format=docx", &json!({ "name": "Ada" })).await, media_type).await;
    assert!(document_part(&filled).contains("Dear Ada"));
    let (missing, detail) = code(render(&caudal, "letter", "", &json!({ "name": "Ada" })).await, 501).await;
    assert_eq!(missing, "office_missing");
    assert!(detail.contains("make setup"), "{detail}");
    let dead: Value = caudal.get("/v1/dead-letters").await.json().await.unwrap();
    assert_eq!(dead["dead_letters"].as_array().map_or(0, Vec::len), 0, "nothing is broken: {dead}");
}
