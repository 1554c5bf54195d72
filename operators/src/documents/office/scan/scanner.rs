//! Scans a document: checks its type, then every part of a package by name, relationships, markup and embedded files.

use std::collections::HashSet;

use bytes::Bytes;
use pipeline::Rejection;

use super::elements::ElementChecker;
use super::rejection::refused;
use super::relationships;
use crate::documents::office::inflate::Budget;
use crate::documents::office::limits::Limits;
use crate::documents::office::package::{Package, malformed};
use crate::documents::office::sniff::{Kind, sniff};
use crate::documents::office::xml::{TokenKind, Tokens};
use crate::documents::office::zip_reader::Entry;

/// A document that passed the scan.
#[derive(Clone, Debug)]
pub struct ScannedDocument {
    /// Its type.
    pub kind: Kind,
    /// The opened package, if it is one.
    pub package: Option<Package>,
}

/// Checks a document that must be of one of the `accepted` types.
///
/// Packages are checked part by part. For other files only the type is checked: these rules do not apply to them, and
/// the converter reads them in its sandbox.
///
/// # Errors
/// 413 for a file beyond the limit, 415 for a type that is not accepted or that is ambiguous, 422 for everything else.
/// Codes are stable; details name the part, the limit and the value.
pub fn scan(bytes: &Bytes, accepted: &[Kind], limits: &Limits) -> Result<ScannedDocument, Rejection> {
    if bytes.len() as u64 > limits.file.0 {
        let detail = format!("the file has {} bytes; the limit is {}", bytes.len(), limits.file);
        return Err(Rejection::too_large("file_too_large", detail));
    }
    let kind = sniff(bytes, limits)?;
    if !accepted.contains(&kind) {
        return Err(not_accepted(kind, accepted));
    }
    if !kind.is_package() {
        return Ok(ScannedDocument { kind, package: None });
    }
    let package = Package::open(bytes.clone(), limits)?;
    let mut scanner =
        Scanner { package: &package, kind, limits, budget: Budget::of(limits), workbooks: HashSet::new() };
    scanner.run()?;
    Ok(ScannedDocument { kind, package: Some(package) })
}

fn not_accepted(kind: Kind, accepted: &[Kind]) -> Rejection {
    let names: Vec<String> = accepted.iter().map(ToString::to_string).collect();
    let names = names.join(", ");
    let (code, remedy) = match kind {
        Kind::MacroDocument => ("document_macros", "save it without macros"),
        Kind::EncryptedOoxml => ("document_encrypted", "save it without a password"),
        _ => ("document_type", "the type is detected by content, not by name"),
    };
    Rejection::unsupported(code, format!("the file is of type {kind}; expected one of: {names}; {remedy}"))
}

struct Scanner<'s> {
    package: &'s Package,
    kind: Kind,
    limits: &'s Limits,
    budget: Budget,
    /// Nested packages that are allowed: the data of charts, which no converter opens.
    workbooks: HashSet<String>,
}

impl Scanner<'_> {
    fn run(&mut self) -> Result<(), Rejection> {
        self.unambiguous()?;
        let package = self.package;
        let (links, parts): (Vec<&Entry>, Vec<&Entry>) =
            package.entries().iter().filter(|entry| !entry.is_folder()).partition(|entry| is_rels(&entry.name));
        for entry in links {
            let text = package.read_text(entry, &mut self.budget)?;
            relationships::check(&entry.name, &text, self.limits, &mut self.workbooks)?;
        }
        for entry in parts {
            self.part(entry)?;
        }
        Ok(())
    }

    /// Rejects a package that could be read as two types.
    fn unambiguous(&self) -> Result<(), Rejection> {
        let foreign: &[&str] = if self.kind.is_odf() { &["[Content_Types].xml"] } else { &["mimetype"] };
        match foreign.iter().find(|name| self.package.find(name).is_some()) {
            None => Ok(()),
            Some(name) => {
                let detail = format!(
                    "the file is {} but has a part {name:?}, so it could be read as two types; save it again",
                    self.kind
                );
                Err(Rejection::unsupported("document_ambiguous", detail))
            }
        }
    }

    fn part(&mut self, entry: &Entry) -> Result<(), Rejection> {
        let name = entry.name.as_str();
        active_name(name)?;
        if is_xml_name(name) {
            return self.markup(entry);
        }
        let content = self.package.read(entry, &mut self.budget)?;
        let start = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&content).trim_ascii_start();
        if start.starts_with(b"<") || start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
            drop(content);
            return self.markup(entry);
        }
        let nested = start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06");
        if nested && !self.workbooks.contains(&name.to_ascii_lowercase()) {
            let remedy = "remove the embedded file, or insert it as an image";
            return Err(refused("embedded_package", name, "a package inside the package", remedy));
        }
        if start.starts_with(b"\xd0\xcf\x11\xe0") {
            let remedy = "remove the embedded object, or insert it as an image";
            return Err(refused("embedded_object", name, "a compound file (an OLE object or macros)", remedy));
        }
        self.image(name, &content)
    }

    /// Checks the size of an image, because the converter decodes the images of a document.
    fn image(&self, name: &str, content: &[u8]) -> Result<(), Rejection> {
        let Ok(header) = crate::pictures::decode::probe(content) else { return Ok(()) };
        let pixels = u64::from(header.width) * u64::from(header.height);
        if pixels <= self.limits.pixels {
            return Ok(());
        }
        let (width, height, most) = (header.width, header.height, self.limits.pixels);
        let what = format!("{width} × {height} pixels; the limit is {most} in total");
        Err(Rejection::unusable("picture_too_large", format!("image {name:?} has {what}; make it smaller")))
    }

    fn markup(&mut self, entry: &Entry) -> Result<(), Rejection> {
        let text = self.package.read_text(entry, &mut self.budget)?;
        let name = entry.name.as_str();
        let mut elements = ElementChecker::new(name, self.kind, self.limits);
        let mut tokens = Tokens::new(&text, self.limits.depth);
        while let Some(token) = tokens.read().map_err(|why| malformed(name, &why))? {
            match token.kind {
                TokenKind::Open | TokenKind::Empty => elements.open(&token)?,
                TokenKind::Close => elements.close(&token)?,
                TokenKind::Text | TokenKind::Cdata => elements.text(&token)?,
                TokenKind::Other => {}
            }
        }
        elements.end()
    }
}

fn is_rels(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".rels")
}

fn is_xml_name(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    matches!(extension.as_str(), "xml" | "rels" | "vml" | "rdf" | "svg")
}

/// Rejects parts that are active by their name, whatever refers to them.
fn active_name(name: &str) -> Result<(), Rejection> {
    let lower = name.to_ascii_lowercase();
    let file = lower.rsplit('/').next().unwrap_or_default();
    let folder = |wanted: &str| lower.split('/').rev().skip(1).any(|segment| segment == wanted);
    let macros = matches!(file, "vbaproject.bin" | "vbadata.xml" | "vbaprojectsignature.bin" | "macrosignatures.xml")
        || ["basic", "scripts", "dialogs"].iter().any(|library| lower.starts_with(&format!("{library}/")));
    if macros {
        return Err(refused("document_macros", name, "macros", "save the document without macros"));
    }
    if folder("activex") || folder("ctrlprops") {
        return Err(refused("embedded_object", name, "a form control", "remove the control"));
    }
    Ok(())
}
