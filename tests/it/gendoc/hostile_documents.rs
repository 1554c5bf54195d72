//! Hostile documents (external links, decompression bombs, false types) are refused before LibreOffice opens them, and
//! no outside request is made.

use std::net::TcpListener;

use reqwest::Response;
use reqwest::multipart::{Form, Part};

use super::fixtures::{docx, docx_with, gendoc, package, paragraph, problem_of};
use crate::caudal::Caudal;

const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";

/// A DOCX with an external relationship.
fn with_external(kind: &str, target: &str) -> Vec<u8> {
    let relationship =
        format!("<Relationship Id=\"x1\" Type=\"{OFFICE}/{kind}\" TargetMode=\"External\" Target=\"{target}\"/>");
    docx_with(&paragraph("x"), &relationship)
}

/// Hostile documents with a description and the statuses that may refuse them; links go to `url`.
fn hostile_documents(url: &str) -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    let bomb = docx(&[&"a".repeat(12 << 20)]);
    let deep = docx_with(&format!("{}{}", "<w:p>".repeat(400), "</w:p>".repeat(400)), "");
    let with_dtd = package(&[
        ("[Content_Types].xml", "<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"/>"),
        ("word/document.xml", "<!DOCTYPE x [<!ENTITY a \"b\">]><x>&a;</x>"),
    ]);
    let macros = package(&[
        (
            "[Content_Types].xml",
            "<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"><Override \
             PartName=\"/word/document.xml\" \
             ContentType=\"application/vnd.ms-word.document.macroEnabled.main+xml\"/></Types>",
        ),
        ("word/document.xml", "<x/>"),
        ("word/vbaProject.bin", "x"),
    ]);
    vec![
        ("a linked image", with_external("image", url), &[422][..]),
        ("an image from a local file", with_external("image", "file:///etc/passwd"), &[422]),
        ("a remote template", with_external("attachedTemplate", url), &[422]),
        ("a linked object", with_external("oleObject", url), &[422]),
        ("a remote frame", with_external("frame", url), &[422]),
        ("a decompression bomb", bomb, &[413, 422]),
        ("deeply nested elements", deep, &[422]),
        ("a document type declaration", with_dtd, &[415, 422]),
        ("macros", macros, &[415, 422]),
        ("a truncated package", docx(&["x"])[..200].to_vec(), &[415, 422]),
        ("a script", b"#!/bin/sh\nrm -rf /\n\0\0".to_vec(), &[415]),
        ("a binary Office document", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 rest".to_vec(), &[415]),
    ]
}

async fn convert(caudal: &Caudal, document: Vec<u8>) -> Response {
    let form = Form::new().part("files", Part::bytes(document).file_name("a.docx"));
    caudal.client.post(caudal.url("/forms/libreoffice/convert")).multipart(form).send().await.unwrap()
}

#[tokio::test]
async fn hostile_documents_are_refused_with_a_code_and_cause_no_outside_request() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}/x", trap.local_addr().unwrap());
    let caudal = gendoc(&[]).await;
    for (what, document, statuses) in hostile_documents(&url) {
        let answer = convert(&caudal, document).await;
        let status = answer.status().as_u16();
        assert!(statuses.contains(&status), "{what}: {status} {}", answer.text().await.unwrap());
        let (code, _) = problem_of(answer, status).await;
        assert!(!code.is_empty(), "{what}");
    }
    assert!(trap.accept().is_err(), "an outside request was made");
    // LibreOffice loaded none of them, and still works.
    let metrics = caudal.get("/metrics").await.text().await.unwrap();
    assert!(!metrics.contains("caudal_office_load_seconds_count"), "{metrics}");
    assert_eq!(convert(&caudal, docx(&["fine"])).await.status(), 200);
    // A loaded document would have been counted: the metric works.
    let metrics = caudal.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("caudal_office_load_seconds_count 1"), "{metrics}");
}
