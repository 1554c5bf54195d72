//! Without LibreOffice: templates are still filled, a conversion fails with 501 and says what to install.

use serde_json::{Value, json};

use super::fixtures::{body_of, document_part, docx, gendoc, problem_of, put, render};

#[tokio::test]
async fn a_machine_without_libreoffice_still_fills_templates() {
    let caudal = gendoc(&["--set", "office.path=/nowhere"]).await;
    assert!(caudal.log().contains("apt-get install libreoffice-writer-nogui"), "{}", caudal.log());
    put(&caudal, "letter", docx(&["Dear {{ name }}"])).await;
    let media_type = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
    let filled = body_of(render(&caudal, "letter", "?format=docx", &json!({ "name": "Ada" })).await, media_type).await;
    assert!(document_part(&filled).contains("Dear Ada"));
    let (missing, detail) = problem_of(render(&caudal, "letter", "", &json!({ "name": "Ada" })).await, 501).await;
    assert_eq!(missing, "office_missing");
    assert!(detail.contains("make setup"), "{detail}");
    let dead: Value = caudal.get("/v1/dead-letters").await.json().await.unwrap();
    assert_eq!(
        dead["dead_letters"].as_array().map_or(0, Vec::len),
        0,
        "a missing LibreOffice makes no dead letters: {dead}"
    );
}
