//! The pre-scan: what a document engine must not see is refused before it sees anything.
//!
//! Every part is inflated once, counted, and read. Rules go by the local names of elements and attributes, because a
//! prefix is the author's choice. A package that could be read both as OOXML and as OpenDocument is refused: one reader
//! would follow links that another did not check.

mod fields;
mod markup;
mod relations;

use std::collections::HashSet;

use bytes::Bytes;
use pipeline::Rejection;

use super::inflate::Budget;
use super::package::{Package, malformed};
use super::sniff::{Kind, sniff};
use super::xml::{self, TokenKind, Tokens};
use super::{Entry, Limits};
use markup::Markup;

/// A document that may go on.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// What it is.
    pub kind: Kind,
    /// Where it is a package: opened.
    pub package: Option<Package>,
}

/// 422: something in a document reaches outside of it, or runs.
fn refused(code: &'static str, part: &str, what: impl std::fmt::Display, remedy: &str) -> Rejection {
    Rejection::unusable(code, format!("part {part:?} has {what}, which is not taken; {remedy}"))
}

/// Checks a document that ought to be one of `accepted`.
///
/// Packages are checked part by part. Of files that are no packages only the type is checked: they have nothing of these
/// rules to hold against, and an engine that reads them does so in its sandbox.
///
/// # Errors
/// 413 for a file beyond its bound, 415 for a type that is not taken or that could be taken for two, 422 for everything
/// else; codes are stable, details name the part, the limit and the value.
pub fn scan(bytes: &Bytes, accepted: &[Kind], limits: &Limits) -> Result<Scanned, Rejection> {
    if bytes.len() as u64 > limits.file.0 {
        let detail = format!("the file has {} bytes, at most {} are taken", bytes.len(), limits.file);
        return Err(Rejection::too_large("file_too_large", detail));
    }
    let kind = sniff(bytes, limits)?;
    if !accepted.contains(&kind) {
        return Err(not_accepted(kind, accepted));
    }
    if !kind.is_package() {
        return Ok(Scanned { kind, package: None });
    }
    let package = Package::open(bytes.clone(), limits)?;
    let mut scanner =
        Scanner { package: &package, kind, limits, budget: Budget::of(limits), workbooks: HashSet::new() };
    scanner.run()?;
    Ok(Scanned { kind, package: Some(package) })
}

fn not_accepted(kind: Kind, accepted: &[Kind]) -> Rejection {
    let names: Vec<String> = accepted.iter().map(ToString::to_string).collect();
    let taken = names.join(", ");
    let (code, remedy) = match kind {
        Kind::MacroDocument => ("document_macros", "save it without macros"),
        Kind::EncryptedOoxml => ("document_encrypted", "save it without a password"),
        _ => ("document_type", "its name and declared type are not looked at"),
    };
    Rejection::unsupported(code, format!("the file is of type {kind}, taken: {taken}; {remedy}"))
}

struct Scanner<'s> {
    package: &'s Package,
    kind: Kind,
    limits: &'s Limits,
    budget: Budget,
    /// Nested packages that are taken: the data behind a chart, which no converter opens.
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
            relations::check(&entry.name, &text, self.limits, &mut self.workbooks)?;
        }
        for entry in parts {
            self.part(entry)?;
        }
        Ok(())
    }

    /// One package, one reading.
    fn unambiguous(&self) -> Result<(), Rejection> {
        let foreign: &[&str] = if self.kind.is_odf() { &["[Content_Types].xml"] } else { &["mimetype"] };
        match foreign.iter().find(|name| self.package.find(name).is_some()) {
            None => Ok(()),
            Some(name) => {
                let detail =
                    format!("the file is {} and yet has a part {name:?}: it could be read as two types", self.kind);
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
            let remedy = "remove the embedded file, or insert it as a picture";
            return Err(refused("embedded_package", name, "a package within the package", remedy));
        }
        if start.starts_with(b"\xd0\xcf\x11\xe0") {
            let remedy = "remove the embedded object, or insert it as a picture";
            return Err(refused("embedded_object", name, "a compound file (an OLE object or macros)", remedy));
        }
        self.picture(name, &content)
    }

    /// A picture's header, held against the limit of `decode`: an engine decodes what it shows.
    fn picture(&self, name: &str, content: &[u8]) -> Result<(), Rejection> {
        let Ok(header) = crate::decode::probe(content) else { return Ok(()) };
        let pixels = u64::from(header.width) * u64::from(header.height);
        if pixels <= self.limits.pixels {
            return Ok(());
        }
        let (width, height, most) = (header.width, header.height, self.limits.pixels);
        let what = format!("{width} × {height} pixels, at most {most} are taken in all");
        Err(Rejection::unusable("picture_too_large", format!("picture {name:?} has {what}; make it smaller")))
    }

    fn markup(&mut self, entry: &Entry) -> Result<(), Rejection> {
        let text = self.package.read_text(entry, &mut self.budget)?;
        let name = entry.name.as_str();
        let mut markup = Markup::new(name, self.kind, self.limits);
        let mut tokens = Tokens::new(&text, self.limits.depth);
        while let Some(token) = tokens.read().map_err(|why| malformed(name, &why))? {
            match token.kind {
                TokenKind::Open | TokenKind::Empty => markup.open(&token)?,
                TokenKind::Close => markup.close(&token)?,
                TokenKind::Text | TokenKind::Cdata => markup.text(&token)?,
                TokenKind::Other => {}
            }
        }
        markup.end()
    }
}

fn is_rels(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".rels")
}

fn is_xml_name(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    matches!(extension.as_str(), "xml" | "rels" | "vml" | "rdf" | "svg")
}

/// Parts that are active by their name, whatever refers to them.
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

/// The scheme of a link, in lower case: `https` of `https://…`; `file` for paths and shares of Windows.
fn scheme(target: &str) -> Option<String> {
    // Programs pass over white space and control characters when they read a link; so a check must.
    let target: String = target.chars().filter(|c| !c.is_whitespace() && !c.is_control()).take(64).collect();
    if target.starts_with("\\\\") || target.starts_with("//") {
        return Some("file".into());
    }
    let (scheme, _) = target.split_once(':')?;
    let letters = scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    match scheme.len() {
        0 => None,
        1 => Some("file".into()),
        _ => letters.then(|| scheme.to_ascii_lowercase()),
    }
}

/// Whether following a link would run something.
fn runs(scheme: &str) -> bool {
    matches!(
        scheme,
        "javascript" | "vbscript" | "data" | "macro" | "slot" | "service" | "private" | "ms-msdt" | "search-ms"
    ) || scheme.starts_with("vnd.sun.star")
}

#[cfg(test)]
mod tests;
