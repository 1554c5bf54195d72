//! The form that Gotenberg's clients send.

use reqwest::Response;
use reqwest::multipart::{Form, Part};

use super::docx::{code, docx, gendoc, good, names, read_pdf};
use crate::caudal::Caudal;

fn file(name: &str, bytes: impl Into<Vec<u8>>) -> Part {
    Part::bytes(bytes.into()).file_name(name.to_owned())
}

async fn convert(caudal: &Caudal, form: Form) -> Response {
    caudal.client.post(caudal.url("/forms/libreoffice/convert")).multipart(form).send().await.unwrap()
}

#[tokio::test]
async fn one_document_is_a_pdf_and_several_are_an_archive_or_merged() {
    let caudal = gendoc(&[]).await;
    // Whatever the parts are called.
    let one = Form::new().part("anything", file("a.docx", docx(&["first"])));
    let (pages, text) = read_pdf(&good(convert(&caudal, one).await, "application/pdf").await);
    assert_eq!((pages, text.trim()), (1, "first"));
    let two = || {
        let first = file("a.docx", docx(&["first"]));
        Form::new().part("files", first).part("files", file("b.csv", "kind,count\nsecond,2\n"))
    };
    let archive = good(convert(&caudal, two()).await, "application/zip").await;
    assert_eq!(names(&archive), ["a.pdf", "b.pdf"]);
    let merged = good(convert(&caudal, two().text("merge", "true")).await, "application/pdf").await;
    let (pages, text) = read_pdf(&merged);
    assert_eq!(pages, 2);
    assert!(text.find("first").unwrap() < text.find("second").unwrap(), "{text}");
    let archival = two().text("merge", "true").text("pdfa", "PDF/A-2b").text("exportBookmarks", "true");
    let merged = good(convert(&caudal, archival).await, "application/pdf").await;
    assert!(String::from_utf8_lossy(&merged).contains("/OutputIntents"));
}

#[tokio::test]
async fn what_is_wrong_is_said_in_gotenbergs_words() {
    let caudal = gendoc(&[]).await;
    let document = || file("a.docx", docx(&["x"]));
    for (form, words) in [
        (Form::new().text("merge", "true"), "Invalid form data: no form file found for extensions: [.docx"),
        (Form::new().part("f", document()).text("quality", "x"), "Invalid form data: form field 'quality' is invalid"),
        (Form::new().part("f", document()).text("splitMode", "pages"), "Invalid form data: form field 'splitMode'"),
    ] {
        let (wrong, detail) = code(convert(&caudal, form).await, 400).await;
        assert_eq!(wrong, "invalid_form");
        assert!(detail.starts_with(words), "{detail}");
    }
    let picture = Form::new().part("f", file("a.docx", b"\x89PNG\r\n\x1a\n and more".to_vec()));
    let (wrong, detail) = code(convert(&caudal, picture).await, 415).await;
    assert_eq!(wrong, "document_type");
    assert!(detail.contains("a.docx") && detail.contains("picture"), "{detail}");
}
