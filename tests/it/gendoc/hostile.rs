//! Documents that reach outside, blow up or pretend: refused before an engine sees them, and nobody is called.

use std::net::TcpListener;

use reqwest::multipart::{Form, Part};

use super::docx::{code, docx, docx_with, gendoc, package, paragraph};

const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";

/// A relationship of the document to something outside.
fn outside(kind: &str, target: &str) -> Vec<u8> {
    let relationship =
        format!("<Relationship Id=\"x1\" Type=\"{OFFICE}/{kind}\" TargetMode=\"External\" Target=\"{target}\"/>");
    docx_with(&paragraph("x"), &relationship)
}

#[tokio::test]
async fn a_hostile_document_is_refused_with_its_code_and_calls_nobody() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}/x", trap.local_addr().unwrap());
    let caudal = gendoc(&[]).await;
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
             PartName=\"/word/document.xml\" ContentType=\"application/vnd.ms-word.document.macroEnabled.main+xml\"/></Types>",
        ),
        ("word/document.xml", "<x/>"),
        ("word/vbaProject.bin", "x"),
    ]);
    for (what, document, statuses) in [
        ("a linked picture", outside("image", &url), &[422][..]),
        ("a picture of the machine", outside("image", "file:///etc/passwd"), &[422]),
        ("a remote template", outside("attachedTemplate", &url), &[422]),
        ("a linked object", outside("oleObject", &url), &[422]),
        ("a remote frame", outside("frame", &url), &[422]),
        ("a bomb", bomb, &[413, 422]),
        ("elements without end", deep, &[422]),
        ("a document type", with_dtd, &[415, 422]),
        ("macros", macros, &[415, 422]),
        ("half a package", docx(&["x"])[..200].to_vec(), &[415, 422]),
        ("a script", b"#!/bin/sh\nrm -rf /\n\0\0".to_vec(), &[415]),
        ("an old document", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 rest".to_vec(), &[415]),
    ] {
        let form = Form::new().part("files", Part::bytes(document).file_name("a.docx"));
        let answer = caudal.client.post(caudal.url("/forms/libreoffice/convert")).multipart(form).send().await.unwrap();
        let status = answer.status().as_u16();
        assert!(statuses.contains(&status), "{what}: {status} {}", answer.text().await.unwrap());
        let (told, _) = code(answer, status).await;
        assert!(!told.is_empty(), "{what}");
    }
    assert!(trap.accept().is_err(), "somebody was called");
    // The engine had no work of it, and works.
    let metrics = caudal.get("/metrics").await.text().await.unwrap();
    assert!(!metrics.contains("caudal_office_load_seconds_count"), "{metrics}");
    let form = Form::new().part("files", Part::bytes(docx(&["fine"])).file_name("a.docx"));
    let answer = caudal.client.post(caudal.url("/forms/libreoffice/convert")).multipart(form).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    // And this is how its work would have shown.
    let metrics = caudal.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("caudal_office_load_seconds_count 1"), "{metrics}");
}
