//! Checks the elements of a part: rejects those that embed, fetch or run something, and counts those that are slow to
//! lay out.

use pipeline::Rejection;

use super::field_codes::{FieldCodes, fetching};
use super::link_scheme::{runs, scheme};
use super::rejection::refused;
use crate::documents::office::limits::Limits;
use crate::documents::office::sniff::Kind;
use crate::documents::office::xml::{self, Token, TokenKind};

/// Elements of OOXML that are rejected, by local name.
const OOXML: &[(&str, &str, &str)] = &[
    ("altChunk", "external_content", "an imported document (altChunk)"),
    ("subDoc", "external_content", "a sub-document"),
    ("frameset", "external_content", "frames"),
    ("mailMerge", "external_content", "a mail merge"),
    ("OLEObject", "embedded_object", "an OLE object"),
    ("oleObject", "embedded_object", "an OLE object"),
    ("oleObj", "embedded_object", "an OLE object"),
    ("objectEmbed", "embedded_object", "an embedded object"),
    ("objectLink", "external_content", "a linked object"),
    ("control", "embedded_object", "an ActiveX control"),
    ("ddeLink", "external_content", "a DDE link"),
    ("oleLink", "external_content", "an OLE link"),
    ("externalBook", "external_content", "a link to another workbook"),
];

/// Elements of OpenDocument that are rejected, by local name.
const ODF: &[(&str, &str, &str)] = &[
    ("object-ole", "embedded_object", "an OLE object"),
    ("plugin", "embedded_object", "a plug-in"),
    ("applet", "embedded_object", "an applet"),
    ("floating-frame", "external_content", "a floating frame"),
    ("event-listener", "document_macros", "a macro bound to an event"),
    ("script", "document_macros", "a script"),
    ("dde-source", "external_content", "a DDE link"),
    ("dde-link", "external_content", "a DDE link"),
    ("dde-connection-decl", "external_content", "a DDE link"),
    ("cell-range-source", "external_content", "a link to another document"),
    ("database-source-sql", "external_content", "a database query"),
    ("database-source-query", "external_content", "a database query"),
    ("database-source-table", "external_content", "a database query"),
];

/// Content types that only active parts have.
const ACTIVE_TYPES: [&str; 4] = ["macroenabled", "vbaproject", "activex", "oleobject"];

const REMEDY: &str = "remove it in the program the document was made with, and save again";

/// Checks one part, token by token.
pub(super) struct ElementChecker<'s> {
    part: &'s str,
    odf: bool,
    limits: &'s Limits,
    fields: FieldCodes,
    /// Whether the current text is a field code, or a formula.
    code: bool,
    formula: bool,
    paragraphs: usize,
    cells: usize,
}

impl<'s> ElementChecker<'s> {
    pub(super) fn new(part: &'s str, kind: Kind, limits: &'s Limits) -> Self {
        let fields = FieldCodes::default();
        Self { part, odf: kind.is_odf(), limits, fields, code: false, formula: false, paragraphs: 0, cells: 0 }
    }

    pub(super) fn open(&mut self, tag: &Token<'_>) -> Result<(), Rejection> {
        let name = tag.local_name();
        let table = if self.odf { ODF } else { OOXML };
        if let Some((_, code, what)) = table.iter().find(|(refused, ..)| *refused == name) {
            return Err(refused(code, self.part, what, REMEDY));
        }
        self.count(name)?;
        if self.odf { self.odf_tag(name, tag) } else { self.ooxml_tag(name, tag) }
    }

    pub(super) fn close(&mut self, tag: &Token<'_>) -> Result<(), Rejection> {
        match tag.local_name() {
            "instrText" | "delInstrText" => self.code = false,
            "f" => self.formula = false,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn text(&mut self, token: &Token<'_>) -> Result<(), Rejection> {
        let length = token.raw.len() as u64;
        if length > self.limits.run.0 {
            let detail = format!(
                "part {:?} has {length} bytes of text in one run; the limit is {}: divide it into paragraphs",
                self.part, self.limits.run
            );
            return Err(Rejection::unusable("text_run_too_long", detail));
        }
        if self.code {
            let found = self.fields.code(&token.text());
            self.no_field(found)?;
        }
        if self.formula {
            let upper = token.text().to_ascii_uppercase();
            if let Some(name) = ["WEBSERVICE(", "DDE("].into_iter().find(|name| upper.contains(name)) {
                return Err(refused("external_content", self.part, format!("a formula with {name}…)"), REMEDY));
            }
        }
        Ok(())
    }

    fn count(&mut self, name: &str) -> Result<(), Rejection> {
        let (counted, limit, what) = match name {
            "p" | "h" => (&mut self.paragraphs, self.limits.paragraphs, "paragraphs"),
            "tc" | "c" | "table-cell" => (&mut self.cells, self.limits.cells, "table cells"),
            _ => return Ok(()),
        };
        *counted += 1;
        if *counted <= limit {
            return Ok(());
        }
        let detail = format!("part {:?} has more than {limit} {what}; divide the document", self.part);
        Err(Rejection::unusable("document_too_complex", detail))
    }

    fn ooxml_tag(&mut self, name: &str, tag: &Token<'_>) -> Result<(), Rejection> {
        match name {
            "instrText" | "delInstrText" => self.code = tag.kind == TokenKind::Open,
            "f" => self.formula = tag.kind == TokenKind::Open,
            "fldSimple" => {
                let found = tag.attribute_local("instr").and_then(|code| fetching(&code));
                self.no_field(found)?;
            }
            "fldChar" => self.field_char(&tag.attribute_local("fldCharType").unwrap_or_default())?,
            "imagedata" | "fill" | "stroke" | "image" => self.no_external_source(tag)?,
            "Default" | "Override" => {
                let kind = tag.attribute("ContentType").unwrap_or_default().to_ascii_lowercase();
                if ACTIVE_TYPES.iter().any(|active| kind.contains(active)) {
                    let what = format!("the content type {:?}", kind.chars().take(120).collect::<String>());
                    return Err(refused("document_macros", self.part, what, "save it without macros and controls"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn field_char(&mut self, kind: &str) -> Result<(), Rejection> {
        match kind {
            "begin" => self.fields.begin(self.limits),
            "separate" | "end" => {
                let found = self.fields.complete(kind == "end");
                self.no_field(found)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn no_field(&self, found: Option<&'static str>) -> Result<(), Rejection> {
        let Some(keyword) = found else { return Ok(()) };
        Err(refused("external_content", self.part, format!("a field {keyword}"), REMEDY))
    }

    /// Rejects images of VML and SVG that refer to a URL instead of a relationship.
    fn no_external_source(&self, tag: &Token<'_>) -> Result<(), Rejection> {
        for (key, value) in tag.attributes() {
            if !matches!(xml::local(key), "src" | "href" | "althref") {
                continue;
            }
            if let Some(scheme) = scheme(&value).filter(|scheme| scheme != "data") {
                let what = format!("an external image (a {scheme} URL)");
                return Err(refused("external_content", self.part, what, "embed the image"));
            }
        }
        Ok(())
    }

    fn odf_tag(&self, name: &str, tag: &Token<'_>) -> Result<(), Rejection> {
        if matches!(name, "encryption-data") {
            let detail = "the document is protected by a password; save it without one";
            return Err(Rejection::unusable("document_encrypted", detail));
        }
        for (key, value) in tag.attributes() {
            if xml::local(key) == "href" {
                self.odf_link(name, &value)?;
            }
        }
        Ok(())
    }

    fn odf_link(&self, element: &str, target: &str) -> Result<(), Rejection> {
        let scheme = scheme(target);
        if element == "a" {
            return match scheme.filter(|scheme| runs(scheme)) {
                None => Ok(()),
                Some(scheme) => {
                    let what = format!("a hyperlink of scheme {scheme:?}");
                    Err(refused("unsafe_link", self.part, what, "link to http, https or mailto URLs"))
                }
            };
        }
        let leaves = target.starts_with('/') || target.split('/').any(|segment| segment == "..");
        if scheme.is_none() && !leaves {
            return Ok(());
        }
        let what = format!("an external {element} (a {} URL)", scheme.as_deref().unwrap_or("relative"));
        Err(refused("external_content", self.part, what, "embed it in the document instead of linking it"))
    }

    /// Checks at the end of the part.
    pub(super) fn end(&self) -> Result<(), Rejection> {
        self.no_field(self.fields.rest())
    }
}
