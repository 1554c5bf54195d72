//! Test documents, generated.

use std::io::{Cursor, Write as _};

use ms_offcrypto_writer::Ecma376AgileWriter;
use pipeline::documents::Format;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const RELATIONSHIPS: &str = "http://schemas.openxmlformats.org/package/2006/relationships";
const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";

/// A ZIP package of these parts. A part named `mimetype` is stored without compression, as OpenDocument requires.
pub fn package(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        let method = if *name == "mimetype" { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A DOCX with this content of `w:body`, and these relationships of the document.
pub fn docx(body: &str, relationships: &str) -> Vec<u8> {
    let main = "application/vnd.openxmlformats-officedocument.wordprocessingml";
    package(&[
        (
            "[Content_Types].xml",
            &format!(
                "<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\">\
                 <Default Extension=\"rels\" ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/>\
                 <Override PartName=\"/word/document.xml\" ContentType=\"{main}.document.main+xml\"/>\
                 <Override PartName=\"/word/styles.xml\" ContentType=\"{main}.styles+xml\"/></Types>"
            ),
        ),
        (
            "_rels/.rels",
            &format!(
                "<Relationships xmlns=\"{RELATIONSHIPS}\"><Relationship Id=\"r1\" Type=\"{OFFICE}/officeDocument\" \
                 Target=\"word/document.xml\"/></Relationships>"
            ),
        ),
        (
            "word/_rels/document.xml.rels",
            &format!(
                "<Relationships xmlns=\"{RELATIONSHIPS}\"><Relationship Id=\"s1\" Type=\"{OFFICE}/styles\" \
                 Target=\"styles.xml\"/>{relationships}</Relationships>"
            ),
        ),
        (
            "word/styles.xml",
            "<w:styles xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\">\
             <w:style w:type=\"paragraph\" w:styleId=\"Heading1\"><w:name w:val=\"heading 1\"/>\
             <w:pPr><w:outlineLvl w:val=\"0\"/></w:pPr></w:style></w:styles>",
        ),
        (
            "word/document.xml",
            &format!(
                "<w:document xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\" \
                 xmlns:r=\"{OFFICE}\" xmlns:wp=\"http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing\" \
                 xmlns:a=\"http://schemas.openxmlformats.org/drawingml/2006/main\" \
                 xmlns:pic=\"http://schemas.openxmlformats.org/drawingml/2006/picture\"><w:body>{body}\
                 <w:sectPr><w:pgSz w:w=\"11906\" w:h=\"16838\"/></w:sectPr></w:body></w:document>"
            ),
        ),
    ])
}

/// A paragraph of WordprocessingML.
pub fn paragraph(text: &str) -> String {
    format!("<w:p><w:r><w:t xml:space=\"preserve\">{text}</w:t></w:r></w:p>")
}

/// Starts a new page.
pub const PAGE_BREAK: &str = "<w:p><w:r><w:br w:type=\"page\"/></w:r></w:p>";

/// A DOCX with one line of text per page.
pub fn pages(lines: &[&str]) -> Vec<u8> {
    let body = lines.iter().map(|line| paragraph(line)).collect::<Vec<_>>().join(PAGE_BREAK);
    docx(&body, "")
}

/// A one-page DOCX.
pub fn letter(text: &str) -> Vec<u8> {
    pages(&[text])
}

/// An OpenDocument package with this content of `office:body`.
pub fn open_document(kind: &str, body: &str) -> Vec<u8> {
    let media = format!("application/vnd.oasis.opendocument.{kind}");
    let names: String = ["office", "text", "table", "drawing", "presentation"]
        .iter()
        .map(|name| {
            let prefix = if *name == "drawing" { "draw" } else { name };
            format!(" xmlns:{prefix}=\"urn:oasis:names:tc:opendocument:xmlns:{name}:1.0\"")
        })
        .collect();
    package(&[
        ("mimetype", &media),
        (
            "content.xml",
            &format!(
                "<office:document-content{names} xmlns:svg=\"urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0\" \
                 xmlns:xlink=\"http://www.w3.org/1999/xlink\" office:version=\"1.2\"><office:body>{body}</office:body>\
                 </office:document-content>"
            ),
        ),
        ("META-INF/manifest.xml", &manifest(&media, "")),
    ])
}

/// The manifest of a package with a content.xml; `encryption` replaces its entry.
pub fn manifest(media: &str, encryption: &str) -> String {
    format!(
        "<manifest:manifest xmlns:manifest=\"urn:oasis:names:tc:opendocument:xmlns:manifest:1.0\" \
         manifest:version=\"1.2\"><manifest:file-entry manifest:full-path=\"/\" manifest:version=\"1.2\" \
         manifest:media-type=\"{media}\"/>{}</manifest:manifest>",
        if encryption.is_empty() {
            "<manifest:file-entry manifest:full-path=\"content.xml\" manifest:media-type=\"text/xml\"/>"
        } else {
            encryption
        }
    )
}

/// An ODT with one paragraph.
pub fn odt(text: &str) -> Vec<u8> {
    open_document("text", &format!("<office:text><text:p>{text}</text:p></office:text>"))
}

/// An ODS with one row.
pub fn ods(text: &str) -> Vec<u8> {
    let cell = format!("<table:table-cell office:value-type=\"string\"><text:p>{text}</text:p></table:table-cell>");
    let row = format!("<table:table-row>{cell}</table:table-row>");
    open_document(
        "spreadsheet",
        &format!("<office:spreadsheet><table:table table:name=\"S\">{row}</table:table></office:spreadsheet>"),
    )
}

/// An ODP with one line of text per slide.
pub fn odp(lines: &[&str]) -> Vec<u8> {
    let slides: String = lines
        .iter()
        .map(|line| {
            format!(
                "<draw:page><draw:frame svg:x=\"2cm\" svg:y=\"2cm\" svg:width=\"16cm\" svg:height=\"3cm\">\
                 <draw:text-box><text:p>{line}</text:p></draw:text-box></draw:frame></draw:page>"
            )
        })
        .collect();
    open_document("presentation", &format!("<office:presentation>{slides}</office:presentation>"))
}

/// The same line of text in every format that is simple to generate.
pub fn in_every_simple_format(text: &str) -> Vec<(Format, Vec<u8>)> {
    vec![
        (Format::Docx, letter(text)),
        (Format::Odt, odt(text)),
        (Format::Rtf, format!("{{\\rtf1\\ansi {text}\\par}}").into_bytes()),
        (Format::Html, format!("<html><body><p>{text}</p></body></html>").into_bytes()),
        (Format::Txt, format!("{text}\n").into_bytes()),
        (Format::Ods, ods(text)),
        (Format::Csv, format!("{text},7\n").into_bytes()),
        (Format::Odp, odp(&[text])),
    ]
}

/// An ODT with a comment.
pub fn commented(text: &str) -> Vec<u8> {
    let comment = "<office:annotation><text:p>A remark</text:p></office:annotation>";
    open_document("text", &format!("<office:text><text:p>{comment}{text}</text:p></office:text>"))
}

/// An encrypted Office Open XML document (MS-OFFCRYPTO, agile encryption).
pub fn encrypted(document: &[u8], password: &str) -> Vec<u8> {
    let file = Cursor::new(Vec::new());
    let mut writer = Ecma376AgileWriter::create(&mut rand::rng(), password, file).unwrap();
    writer.write_all(document).unwrap();
    writer.into_inner().unwrap().into_inner()
}
