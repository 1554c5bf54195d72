//! Helpers of the GenDoc tests: start the service, build DOCX files, send requests, read PDFs and archives.

use std::io::{Cursor, Read as _, Write as _};

use reqwest::Response;
use serde_json::Value;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use crate::caudal::{Caudal, Folder};

const RELATIONSHIPS: &str = "http://schemas.openxmlformats.org/package/2006/relationships";
const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";

/// Starts the service with one conversion at a time: one worker, and one spare that is kept warm.
pub async fn gendoc(more: &[&str]) -> Caudal {
    gendoc_in(Folder::new(), more).await
}

/// Like [`gendoc`], in an existing folder.
pub async fn gendoc_in(folder: Folder, more: &[&str]) -> Caudal {
    let usual = ["config/gendoc.toml", "--set", "limits.enabled=false", "--set", "office.workers=1"];
    Caudal::serve(folder, &[&usual[..], more].concat()).await
}

/// An Open Packaging (ZIP) file with these parts.
pub fn package(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A DOCX with this body XML and these relationships of its document part.
pub fn docx_with(body: &str, relationships: &str) -> Vec<u8> {
    let main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml";
    let types = format!(
        "<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\">\
         <Default Extension=\"rels\" ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/>\
         <Override PartName=\"/word/document.xml\" ContentType=\"{main}\"/></Types>"
    );
    let root = format!(
        "<Relationships xmlns=\"{RELATIONSHIPS}\"><Relationship Id=\"r1\" Type=\"{OFFICE}/officeDocument\" \
         Target=\"word/document.xml\"/></Relationships>"
    );
    let document = format!(
        "<w:document xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\" xmlns:r=\"{OFFICE}\">\
         <w:body>{body}<w:sectPr><w:pgSz w:w=\"11906\" w:h=\"16838\"/></w:sectPr></w:body></w:document>"
    );
    let rels = format!("<Relationships xmlns=\"{RELATIONSHIPS}\">{relationships}</Relationships>");
    package(&[
        ("[Content_Types].xml", &types),
        ("_rels/.rels", &root),
        ("word/document.xml", &document),
        ("word/_rels/document.xml.rels", &rels),
    ])
}

pub fn paragraph(text: &str) -> String {
    format!("<w:p><w:r><w:t xml:space=\"preserve\">{text}</w:t></w:r></w:p>")
}

/// A DOCX with one paragraph per text.
pub fn docx(paragraphs: &[&str]) -> Vec<u8> {
    docx_with(&paragraphs.iter().map(|text| paragraph(text)).collect::<String>(), "")
}

/// A letter template with a loop.
pub fn letter() -> Vec<u8> {
    docx(&["Dear {{ name }},", "{%p for item in items %}", "{{ item }} is due", "{%p endfor %}"])
}

pub async fn put(caudal: &Caudal, name: &str, template: Vec<u8>) -> Response {
    caudal.client.put(caudal.url(&format!("/templates/{name}"))).body(template).send().await.unwrap()
}

pub async fn render(caudal: &Caudal, name: &str, query: &str, context: &Value) -> Response {
    let url = caudal.url(&format!("/templates/{name}/render{query}"));
    caudal.client.post(url).json(context).send().await.unwrap()
}

/// The body of an answer that must be 200 and of this media type.
pub async fn body_of(response: Response, media_type: &str) -> Vec<u8> {
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes[..bytes.len().min(2_000)]));
    assert_eq!(headers["content-type"], media_type);
    bytes.to_vec()
}

/// The code and detail of a problem that must have this status.
pub async fn problem_of(response: Response, status: u16) -> (String, String) {
    let got = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(got, status, "{text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    (problem["code"].as_str().unwrap().to_owned(), problem["detail"].as_str().unwrap().to_owned())
}

/// Page count and text of a PDF.
pub fn read_pdf(bytes: &[u8]) -> (usize, String) {
    let document = lopdf::Document::load_mem(bytes).unwrap();
    let pages: Vec<u32> = document.get_pages().keys().copied().collect();
    (pages.len(), document.extract_text(&pages).unwrap())
}

/// The XML of a DOCX's document part.
pub fn document_part(bytes: &[u8]) -> String {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut text = String::new();
    archive.by_name("word/document.xml").unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Names of the files in an archive.
pub fn names(bytes: &[u8]) -> Vec<String> {
    let archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
    archive.file_names().map(|name| name.unwrap().into_owned()).collect()
}
