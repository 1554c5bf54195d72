//! Rendering: a template and JSON data become a document in the requested format.

use serde_json::{Value, json};

use super::fixtures::{body_of, docx, gendoc, letter, names, problem_of, put, read_pdf, render};

#[tokio::test]
async fn data_becomes_a_pdf_and_a_repeat_comes_from_the_cache() {
    let caudal = gendoc(&[]).await;
    put(&caudal, "letter", letter()).await;
    let context = json!({ "name": "Żółć & Søn", "items": ["rent", "gas"] });
    let pdf = body_of(render(&caudal, "letter", "", &context).await, "application/pdf").await;
    let (pages, text) = read_pdf(&pdf);
    assert_eq!(pages, 1);
    for part in ["Żółć & Søn", "rent is due", "gas is due"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert_eq!(body_of(render(&caudal, "letter", "", &context).await, "application/pdf").await, pdf);
    let metrics = caudal.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("caudal_office_results_reused_total 1"), "{metrics}");
    for (format, media_type, begins) in [
        ("odt", "application/vnd.oasis.opendocument.text", &b"PK"[..]),
        ("pdfa-2b", "application/pdf", b"%PDF-"),
        ("png", "image/png", b"\x89PNG"),
        ("txt", "text/plain", b""),
    ] {
        let document =
            body_of(render(&caudal, "letter", &format!("?format={format}"), &context).await, media_type).await;
        assert!(document.starts_with(begins), "{format}");
        if format == "pdfa-2b" {
            assert!(String::from_utf8_lossy(&document).contains("<pdfaid:part>2</pdfaid:part>"));
        }
    }
}

#[tokio::test]
async fn client_mistakes_get_a_4xx_code_and_the_place_of_the_mistake() {
    let caudal = gendoc(&[]).await;
    put(&caudal, "letter", letter()).await;
    let (wrong, detail) = problem_of(render(&caudal, "letter", "", &json!({ "items": [] })).await, 422).await;
    assert_eq!(wrong, "undefined_variable");
    assert!(detail.contains("{{ name }}"), "{detail}");
    assert_eq!(problem_of(render(&caudal, "other", "", &json!({})).await, 404).await.0, "unknown_template");
    assert_eq!(problem_of(render(&caudal, "letter", "?format=exe", &json!({})).await, 400).await.0, "bad_parameter");
    let version = format!("?version={}", "0".repeat(64));
    assert_eq!(problem_of(render(&caudal, "letter", &version, &json!({})).await, 404).await.0, "unknown_version");
    let url = caudal.url("/templates/letter/render");
    let broken = caudal.client.post(url).header("content-type", "application/json").body("{").send().await.unwrap();
    assert_eq!(problem_of(broken, 400).await.0, "data_malformed");
    let pages = render(&caudal, "letter", "?pages=9-1", &json!({ "name": "x", "items": [] })).await;
    assert_eq!(problem_of(pages, 400).await.0, "invalid_option");
}

#[tokio::test]
async fn pages_of_typst_documents_can_be_selected_and_drawn_as_images() {
    let caudal = gendoc(&[]).await;
    put(&caudal, "notice", b"= One\n#pagebreak()\n= Two\n#pagebreak()\n= Three".to_vec()).await;
    let data = json!({});
    let ask = |query| render(&caudal, "notice", query, &data);
    let (pages, text) = read_pdf(&body_of(ask("?pages=3,1").await, "application/pdf").await);
    assert_eq!((pages, text.split_whitespace().collect::<String>()), (2, "ThreeOne".into()));
    let image = body_of(ask("?format=png&pages=2&width=300").await, "image/png").await;
    assert_eq!(image[16..20], 300_u32.to_be_bytes(), "width");
    assert_eq!(names(&body_of(ask("?format=png").await, "application/zip").await).len(), 3);
    assert_eq!(problem_of(ask("?pages=4").await, 422).await.0, "pages_missing");
    assert_eq!(problem_of(ask("?watermark=x").await, 415).await.0, "unsupported_conversion");
}

#[tokio::test]
async fn an_event_stream_reports_progress() {
    let caudal = gendoc(&[]).await;
    put(&caudal, "letter", docx(&["Dear {{ name }}"])).await;
    let url = caudal.url("/templates/letter/render");
    let request = caudal.client.post(url).header("accept", "text/event-stream").json(&json!({ "name": "x" }));
    let text = request.send().await.unwrap().text().await.unwrap();
    let steps: Vec<String> = text
        .split("\n\n")
        .filter(|event| event.contains("event: progress"))
        .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
        .map(|data| serde_json::from_str::<Value>(data).unwrap()["step"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(steps, ["filling", "converting", "converted"], "{text}");
    assert!(text.contains("event: done"), "{text}");
}
