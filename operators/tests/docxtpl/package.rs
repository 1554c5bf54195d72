//! Builds DOCX documents like those of a word processor, as far as the templates need.

use operators::documents::office::Writer;

const WORD: &str = "http://schemas.openxmlformats.org/wordprocessingml/2006/main";
const RELATIONS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006";
const KIND: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml";

/// A document with header, footer, footnote and properties.
#[derive(Default)]
pub struct Document {
    /// Content of `w:body`.
    pub body: String,
    /// Content of a header, a footer, a footnote.
    pub header: Option<String>,
    pub footer: Option<String>,
    pub footnote: Option<String>,
    /// Title, author and comment.
    pub properties: Option<[&'static str; 3]>,
}

/// A document with only a body.
pub fn body(content: impl Into<String>) -> Vec<u8> {
    Document { body: content.into(), ..Document::default() }.zip()
}

/// A paragraph of one run.
pub fn p(text: &str) -> String {
    format!(r#"<w:p><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>"#)
}

/// A run with properties.
pub fn run(properties: &str, text: &str) -> String {
    format!(r#"<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>"#)
}

/// A cell with properties after its width.
pub fn tc(properties: &str, text: &str) -> String {
    format!(r#"<w:tc><w:tcPr><w:tcW w:w="1000" w:type="dxa"/>{properties}</w:tcPr>{}</w:tc>"#, p(text))
}

/// A row of plain cells.
pub fn tr(cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|text| tc("", text)).collect();
    format!("<w:tr>{cells}</w:tr>")
}

/// A table with the given number of columns, each 1000 wide.
pub fn table(columns: usize, rows: &[String]) -> String {
    let grid = r#"<w:gridCol w:w="1000"/>"#.repeat(columns);
    format!("<w:tbl><w:tblPr/><w:tblGrid>{grid}</w:tblGrid>{}</w:tbl>{}", rows.concat(), p(""))
}

impl Document {
    /// The package.
    pub fn zip(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let mut types = vec![("word/document.xml", format!("{KIND}.document.main+xml"))];
        let mut links = String::new();
        let mut section = String::new();
        let mut parts = Vec::new();
        for (id, name, root, content) in [
            ("rId1", "header", "hdr", &self.header),
            ("rId2", "footer", "ftr", &self.footer),
            ("rId3", "footnotes", "footnotes", &self.footnote),
        ] {
            let Some(content) = content else { continue };
            links.push_str(&link(id, &format!("{RELATIONS}/{name}"), &format!("{name}.xml")));
            parts.push((format!("word/{name}.xml"), part(root, content)));
            if name != "footnotes" {
                section.push_str(&format!(r#"<w:{name}Reference w:type="default" r:id="{id}"/>"#));
            }
        }
        let kinds = [("word/header.xml", "header"), ("word/footer.xml", "footer"), ("word/footnotes.xml", "footnotes")];
        let there = |name: &str| parts.iter().any(|(part, _)| part == name);
        types.extend(
            kinds.iter().filter(|(name, _)| there(name)).map(|(name, kind)| (*name, format!("{KIND}.{kind}+xml"))),
        );
        let mut root = link("rId1", &format!("{RELATIONS}/officeDocument"), "word/document.xml");
        if let Some(properties) = self.properties {
            types.push(("docProps/core.xml", "application/vnd.openxmlformats-package.core-properties+xml".into()));
            root.push_str(&link(
                "rId2",
                &format!("{PACKAGE}/relationships/metadata/core-properties"),
                "docProps/core.xml",
            ));
            parts.push(("docProps/core.xml".into(), core(properties)));
        }
        writer.add("[Content_Types].xml", content_types(&types).as_bytes());
        writer.add("_rels/.rels", relationships(&root).as_bytes());
        let content = format!("<w:body>{}<w:sectPr>{section}</w:sectPr></w:body>", self.body);
        writer.add("word/document.xml", part("document", &content).as_bytes());
        if !links.is_empty() {
            writer.add("word/_rels/document.xml.rels", relationships(&links).as_bytes());
        }
        parts.iter().for_each(|(name, content)| writer.add(name, content.as_bytes()));
        writer.finish()
    }
}

fn part(root: &str, content: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><w:{root} xmlns:w="{WORD}" xmlns:r="{RELATIONS}" xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing" xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main">{content}</w:{root}>"#
    )
}

fn link(id: &str, kind: &str, target: &str) -> String {
    format!(r#"<Relationship Id="{id}" Type="{kind}" Target="{target}"/>"#)
}

fn relationships(links: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><Relationships xmlns="{PACKAGE}/relationships">{links}</Relationships>"#
    )
}

fn content_types(types: &[(&str, String)]) -> String {
    let one = |(name, kind): &(&str, String)| format!(r#"<Override PartName="/{name}" ContentType="{kind}"/>"#);
    let list: String = types.iter().map(one).collect();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><Types xmlns="{PACKAGE}/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>{list}</Types>"#
    )
}

fn core([title, author, comment]: [&str; 3]) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><cp:coreProperties xmlns:cp="{PACKAGE}/metadata/core-properties" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title><dc:creator>{author}</dc:creator><dc:description>{comment}</dc:description></cp:coreProperties>"#
    )
}
