//! Writes typed values as WordprocessingML: runs, paragraphs and drawings.

use std::fmt::Write as _;

use super::context::{FIRST_DRAWING, InsertContext};
use crate::documents::fill::engine::escaped;
use crate::documents::fill::image::Image;
use crate::documents::fill::relationships::{NewRelationships, Target};
use crate::documents::fill::values::{Format, Paragraph, Span, TypedValue, Underline};
use crate::documents::office::xml::{Token, TokenKind};

/// A typed value as content of a paragraph, or as paragraphs.
pub(super) fn content(
    value: &TypedValue,
    index: usize,
    context: &mut InsertContext<'_>,
    links: &mut NewRelationships,
) -> String {
    let mut out = String::new();
    match value {
        TypedValue::RichText(spans) => spans.iter().for_each(|span| run(&mut out, span, links)),
        TypedValue::RichParagraph(paragraphs) => paragraphs.iter().for_each(|one| paragraph(&mut out, one, links)),
        TypedValue::Image(image) => {
            drawing(&mut out, image, index, context.drawing, links);
            context.drawing += 1;
        }
    }
    out
}

fn paragraph(out: &mut String, paragraph: &Paragraph, links: &mut NewRelationships) {
    out.push_str("<w:p>");
    if let Some(style) = &paragraph.style {
        let _ = write!(out, r#"<w:pPr><w:pStyle w:val="{}"/></w:pPr>"#, escaped(style));
    }
    paragraph.spans.iter().for_each(|span| run(out, span, links));
    out.push_str("</w:p>");
}

fn run(out: &mut String, span: &Span, links: &mut NewRelationships) {
    let link = span.format.link.as_ref().map(|link| links.id(Target::Link(link.clone())));
    if let Some(id) = &link {
        let _ = write!(out, r#"<w:hyperlink r:id="{id}" xmlns:r="{RELATIONS}" w:tgtFrame="_blank">"#);
    }
    out.push_str("<w:r>");
    let properties = properties(&span.format);
    if !properties.is_empty() {
        let _ = write!(out, "<w:rPr>{properties}</w:rPr>");
    }
    out.push_str(r#"<w:t xml:space="preserve">"#);
    for c in span.text.chars() {
        match c {
            '\t' => out.push_str(r#"</w:t><w:tab/><w:t xml:space="preserve">"#),
            '\n' | '\u{7}' => out.push_str(r#"</w:t><w:br/><w:t xml:space="preserve">"#),
            '\u{c}' => out.push_str(r#"</w:t><w:br w:type="page"/><w:t xml:space="preserve">"#),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push_str(&escaped(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push_str("</w:t></w:r>");
    if link.is_some() {
        out.push_str("</w:hyperlink>");
    }
}

/// Run properties in the order of the schema (ECMA-376 part 1, 17.3.2.28).
fn properties(format: &Format) -> String {
    let mut out = String::new();
    let mut value = |name: &str, value: &str| {
        let _ = write!(out, r#"<w:{name} w:val="{}"/>"#, escaped(value));
    };
    if let Some(style) = &format.style {
        value("rStyle", style);
    }
    if let Some(font) = &format.font {
        out.push_str(&fonts(font));
    }
    let mut flags = vec![("b", format.bold), ("bCs", format.bold && format.rtl), ("i", format.italic)];
    flags.extend([("iCs", format.italic && format.rtl), ("strike", format.strike)]);
    for (name, _) in flags.into_iter().filter(|(_, wanted)| *wanted) {
        let _ = write!(out, "<w:{name}/>");
    }
    let mut value = |name: &str, value: &str| {
        let _ = write!(out, r#"<w:{name} w:val="{}"/>"#, escaped(value));
    };
    if let Some(colour) = &format.color {
        value("color", colour.trim_start_matches('#'));
    }
    if let Some(size) = format.size {
        value("sz", &size.to_string());
        value("szCs", &size.to_string());
    }
    if let Some(kind) = underline(&format.underline) {
        value("u", kind);
    }
    if let Some(colour) = &format.highlight {
        let fill = escaped(colour.trim_start_matches('#'));
        let _ = write!(out, r#"<w:shd w:val="clear" w:color="auto" w:fill="{fill}"/>"#);
    }
    let raised = [("superscript", format.superscript), ("subscript", format.subscript)];
    if let Some((kind, _)) = raised.into_iter().find(|(_, wanted)| *wanted) {
        let _ = write!(out, r#"<w:vertAlign w:val="{kind}"/>"#);
    }
    if format.rtl {
        out.push_str("<w:rtl/>");
    }
    if let Some(lang) = &format.lang {
        let _ = write!(out, r#"<w:lang w:val="{}"/>"#, escaped(lang));
    }
    out
}

fn fonts(font: &str) -> String {
    const REGIONS: [&str; 4] = ["eastAsia", "cs", "ascii", "hAnsi"];
    let (region, name) = match font.split_once(':') {
        Some((region, name)) if REGIONS.contains(&region) => (Some(region), name),
        _ => (None, font),
    };
    let name = escaped(name);
    let mut out = String::from("<w:rFonts");
    for attribute in REGIONS.into_iter().filter(|known| *known != "eastAsia" || region == Some("eastAsia")) {
        let _ = write!(out, r#" w:{attribute}="{name}""#);
    }
    out + "/>"
}

fn underline(underline: &Underline) -> Option<&str> {
    const KINDS: [&str; 8] = ["single", "double", "thick", "dotted", "dash", "dotDash", "dotDotDash", "wave"];
    match underline {
        Underline::Plain(false) => None,
        Underline::Plain(true) => Some("single"),
        Underline::Kind(kind) => Some(KINDS.into_iter().find(|known| known == kind).unwrap_or("single")),
    }
}

const RELATIONS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
const DRAWING: &str = "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing";
const MAIN: &str = "http://schemas.openxmlformats.org/drawingml/2006/main";
const PICTURE: &str = "http://schemas.openxmlformats.org/drawingml/2006/picture";

fn drawing(out: &mut String, image: &Image, index: usize, id: u32, links: &mut NewRelationships) {
    let embed = links.id(Target::Image(index));
    let (width, height) = image.size;
    let (alt, name) = (escaped(&image.alt), format!("Picture {}", id - FIRST_DRAWING + 1));
    let click = match &image.link {
        Some(link) => format!(r#"<a:hlinkClick xmlns:a="{MAIN}" r:id="{}"/>"#, links.id(Target::Link(link.clone()))),
        None => String::new(),
    };
    let _ = write!(
        out,
        r#"<w:r><w:drawing><wp:inline xmlns:wp="{DRAWING}" xmlns:r="{RELATIONS}" distT="0" distB="0" distL="0" distR="0"><wp:extent cx="{width}" cy="{height}"/><wp:docPr id="{id}" name="{name}" descr="{alt}">{click}</wp:docPr><wp:cNvGraphicFramePr><a:graphicFrameLocks xmlns:a="{MAIN}" noChangeAspect="1"/></wp:cNvGraphicFramePr><a:graphic xmlns:a="{MAIN}"><a:graphicData uri="{PICTURE}"><pic:pic xmlns:pic="{PICTURE}"><pic:nvPicPr><pic:cNvPr id="0" name="{name}" descr="{alt}">{click}</pic:cNvPr><pic:cNvPicPr/></pic:nvPicPr><pic:blipFill><a:blip r:embed="{embed}"/><a:stretch><a:fillRect/></a:stretch></pic:blipFill><pic:spPr><a:xfrm><a:off x="0" y="0"/><a:ext cx="{width}" cy="{height}"/></a:xfrm><a:prstGeom prst="rect"><a:avLst/></a:prstGeom></pic:spPr></pic:pic></a:graphicData></a:graphic></wp:inline></w:drawing></w:r>"#
    );
}

/// A tag with the value of one attribute replaced.
pub(super) fn with_attribute(raw: &str, name: &str, value: &str) -> String {
    let kind = if raw.ends_with("/>") { TokenKind::Empty } else { TokenKind::Open };
    let tag = Token { kind, raw, at: 0 };
    let mut out = format!("<{} {name}=\"{value}\"", tag.name());
    for (key, old) in tag.attributes().filter(|(key, _)| *key != name) {
        let _ = write!(out, r#" {key}="{}""#, escaped(&old));
    }
    out + if kind == TokenKind::Empty { "/>" } else { ">" }
}
