//! Builds office documents for tests, valid and hostile.

use super::zip_writer::Writer;

pub(crate) const WORD: &str = "http://schemas.openxmlformats.org/wordprocessingml/2006/main";
const RELATIONS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006";

/// A package under construction, part by part.
#[derive(Clone, Default)]
pub(crate) struct Parts(pub(crate) Vec<(String, Vec<u8>)>);

impl Parts {
    pub(crate) fn with(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), content.into()));
        self
    }

    pub(crate) fn zip(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        for (name, content) in &self.0 {
            if name == "mimetype" { writer.add_stored(name, content) } else { writer.add(name, content) }
        }
        writer.finish()
    }
}

/// `_rels` with relationships of `(id, type, target, external)`.
pub(crate) fn rels(list: &[(&str, &str, &str, bool)]) -> String {
    let one = |(id, kind, target, external): &(&str, &str, &str, bool)| {
        let mode = if *external { r#" TargetMode="External""# } else { "" };
        let target = target.replace('&', "&amp;");
        format!(r#"<Relationship Id="{id}" Type="{RELATIONS}/{kind}" Target="{target}"{mode}/>"#)
    };
    let list: String = list.iter().map(one).collect();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><Relationships xmlns="{PACKAGE}/relationships">{list}</Relationships>"#
    )
}

/// `[Content_Types].xml` with overrides of `(part, type)`.
pub(crate) fn content_types(overrides: &[(&str, &str)]) -> String {
    let one = |(part, kind): &(&str, &str)| format!(r#"<Override PartName="/{part}" ContentType="{kind}"/>"#);
    let list: String = overrides.iter().map(one).collect();
    format!(
        r#"<Types xmlns="{PACKAGE}/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>{list}</Types>"#
    )
}

pub(crate) fn ooxml(main: &str, kind: &str, content: &str) -> Parts {
    Parts::default()
        .with("[Content_Types].xml", content_types(&[(main, kind)]))
        .with("_rels/.rels", rels(&[("rId1", "officeDocument", main, false)]))
        .with(main, content)
}

/// `word/document.xml` with that body.
pub(crate) fn document(body: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><w:document xmlns:w="{WORD}" xmlns:r="{RELATIONS}" xmlns:v="urn:schemas-microsoft-com:vml" xmlns:o="urn:schemas-microsoft-com:office:office"><w:body>{body}<w:sectPr/></w:body></w:document>"#
    )
}

/// A DOCX with that body.
pub(crate) fn docx(body: &str) -> Parts {
    const KIND: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml";
    ooxml("word/document.xml", KIND, &document(body))
}

/// An ODT with that content of `office:text`.
pub(crate) fn odf(kind: &str, text: &str) -> Parts {
    let content = format!(
        r#"<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" xmlns:script="urn:oasis:names:tc:opendocument:xmlns:script:1.0" xmlns:xlink="http://www.w3.org/1999/xlink"><office:scripts/><office:body><office:text>{text}</office:text></office:body></office:document-content>"#
    );
    let manifest = r#"<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"><manifest:file-entry manifest:full-path="/"/></manifest:manifest>"#;
    Parts::default()
        .with("mimetype", format!("application/vnd.oasis.opendocument.{kind}"))
        .with("content.xml", content)
        .with("META-INF/manifest.xml", manifest)
}

/// Zeros, which deflate to a thousandth of their length.
pub(crate) fn zeros(length: usize) -> Vec<u8> {
    vec![0; length]
}

/// A PNG of one colour, without a resolution.
pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[120, 60, 30].repeat((width * height) as usize)).unwrap();
    writer.finish().unwrap();
    bytes
}
