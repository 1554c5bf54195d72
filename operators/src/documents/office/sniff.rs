//! Detects the type of a document by its content; names and declared types are ignored.

use std::fmt;

use bytes::Bytes;
use pipeline::Rejection;

use super::inflate::Budget;
use super::limits::Limits;
use super::package::{Package, malformed};
use super::xml::{self, TokenKind, Tokens};

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named after the formats they stand for")]
pub enum Kind {
    Docx,
    Xlsx,
    Pptx,
    Odt,
    Ods,
    Odp,
    Rtf,
    Html,
    Csv,
    Txt,
    Pdf,
    /// An OOXML package with macros: docm, dotm, xlsm, xltm, pptm, potm, ppsm.
    MacroDocument,
    /// Any other OpenDocument: database, drawing, chart, formula or master.
    OtherOdf,
    /// An OOXML document that is protected by a password.
    EncryptedOoxml,
    /// A binary document of Office 97 to 2003: doc, xls, ppt, msg.
    LegacyOffice,
    /// A PNG, JPEG, GIF or WebP.
    Picture,
    /// XML that is not a package, including flat OpenDocument.
    Xml,
    /// A ZIP archive that is not a document.
    Archive,
    /// An empty file, or an unknown type.
    Unknown,
}

impl Kind {
    /// Whether it is a document in a ZIP package.
    #[must_use]
    pub fn is_package(self) -> bool {
        matches!(self, Self::Docx | Self::Xlsx | Self::Pptx) || self.is_odf()
    }

    /// Whether it is OpenDocument.
    #[must_use]
    pub fn is_odf(self) -> bool {
        matches!(self, Self::Odt | Self::Ods | Self::Odp)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docx => "DOCX",
            Self::Xlsx => "XLSX",
            Self::Pptx => "PPTX",
            Self::Odt => "ODT",
            Self::Ods => "ODS",
            Self::Odp => "ODP",
            Self::Rtf => "RTF",
            Self::Html => "HTML",
            Self::Csv => "CSV",
            Self::Txt => "plain text",
            Self::Pdf => "PDF",
            Self::MacroDocument => "Office document with macros",
            Self::OtherOdf => "OpenDocument of another kind (database, drawing, chart, formula or master)",
            Self::EncryptedOoxml => "password-protected Office document",
            Self::LegacyOffice => "binary Office document (97-2003)",
            Self::Picture => "image",
            Self::Xml => "bare XML",
            Self::Archive => "ZIP archive that is not a document",
            Self::Unknown => "unknown",
        })
    }
}

const COMPOUND: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";
/// Bytes of a text that are examined.
const TEXT_HEAD: usize = 4096;

/// Detects the type of `bytes`. A package is opened, and its directory checked, to find its main part.
///
/// # Errors
/// As [`Package::open`], for a file that begins like a package.
pub fn sniff(bytes: &Bytes, limits: &Limits) -> Result<Kind, Rejection> {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        let package = Package::open(bytes.clone(), limits)?;
        return kind_of(&package, &mut Budget::of(limits), limits);
    }
    Ok(kind_of_bytes(bytes))
}

/// The type of a file that is not a package.
fn kind_of_bytes(bytes: &[u8]) -> Kind {
    if bytes.starts_with(COMPOUND) {
        return compound(bytes);
    }
    let picture: [&[u8]; 3] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8"];
    let webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    if webp || picture.iter().any(|magic| bytes.starts_with(magic)) {
        return Kind::Picture;
    }
    if memchr::memmem::find(&bytes[..bytes.len().min(1024)], b"%PDF-").is_some() {
        return Kind::Pdf;
    }
    kind_of_text(bytes)
}

/// Distinguishes compound files: their directory contains the stream names in UTF-16.
fn compound(bytes: &[u8]) -> Kind {
    let wide: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
    match memchr::memmem::find(bytes, &wide) {
        Some(_) => Kind::EncryptedOoxml,
        None => Kind::LegacyOffice,
    }
}

fn kind_of_text(bytes: &[u8]) -> Kind {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let head = &bytes[..bytes.len().min(TEXT_HEAD)];
    let lower = head.trim_ascii_start().to_ascii_lowercase();
    if lower.starts_with(b"{\\rtf") {
        return Kind::Rtf;
    }
    let tags: [&[u8]; 6] = [b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<iframe"];
    if tags.iter().any(|tag| memchr::memmem::find(&lower, tag).is_some()) {
        return Kind::Html;
    }
    if lower.starts_with(b"<?xml") || lower.starts_with(b"<!doctype") {
        return Kind::Xml;
    }
    if head.is_empty() || head.contains(&0) {
        return Kind::Unknown;
    }
    // Single-byte Western text counts as text; data with control characters does not.
    if head.iter().any(|&byte| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c)) {
        return Kind::Unknown;
    }
    if looks_like_rows(head) { Kind::Csv } else { Kind::Txt }
}

/// Whether every complete line has the same number of one separator, outside quotes.
fn looks_like_rows(head: &[u8]) -> bool {
    let whole = if head.len() == TEXT_HEAD { head.iter().rposition(|&b| b == b'\n').unwrap_or(0) } else { head.len() };
    let lines: Vec<&[u8]> = head[..whole].split(|&b| b == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect();
    let count = |line: &[u8], separator: u8| {
        let mut quoted = false;
        line.iter()
            .filter(|&&byte| {
                quoted ^= byte == b'"';
                byte == separator && !quoted
            })
            .count()
    };
    [b',', b';', b'\t'].into_iter().any(|separator| {
        let first = lines.first().map_or(0, |line| count(line, separator));
        first > 0 && lines.len() > 1 && lines.iter().all(|line| count(line, separator) == first)
    })
}

/// The type of a package, by its media type entry or by the content type of its main part.
pub(super) fn kind_of(package: &Package, budget: &mut Budget, limits: &Limits) -> Result<Kind, Rejection> {
    let first = package.entries().first().map(|entry| entry.name.as_str());
    if let (Some("mimetype"), Some(entry)) = (first, package.find("mimetype")) {
        let media_type = package.read(entry, budget)?;
        return Ok(odf_kind(media_type.trim_ascii()));
    }
    if package.find("META-INF/manifest.xml").is_some() {
        return Ok(Kind::Archive);
    }
    let Some(content_type) = main_content_type(package, budget, limits)? else { return Ok(Kind::Archive) };
    Ok(ooxml_kind(&content_type))
}

fn odf_kind(media_type: &[u8]) -> Kind {
    const ODF: &[u8] = b"application/vnd.oasis.opendocument.";
    match media_type.strip_prefix(ODF) {
        Some(b"text" | b"text-template") => Kind::Odt,
        Some(b"spreadsheet" | b"spreadsheet-template") => Kind::Ods,
        Some(b"presentation" | b"presentation-template") => Kind::Odp,
        Some(_) => Kind::OtherOdf,
        None => Kind::Archive,
    }
}

fn ooxml_kind(content_type: &str) -> Kind {
    const OOXML: &str = "application/vnd.openxmlformats-officedocument.";
    let lower = content_type.to_ascii_lowercase();
    if lower.contains("macroenabled") {
        return Kind::MacroDocument;
    }
    match lower.strip_prefix(OOXML).and_then(|rest| rest.strip_suffix(".main+xml")) {
        Some("wordprocessingml.document" | "wordprocessingml.template") => Kind::Docx,
        Some("spreadsheetml.sheet" | "spreadsheetml.template") => Kind::Xlsx,
        Some("presentationml.presentation" | "presentationml.template" | "presentationml.slideshow") => Kind::Pptx,
        _ => Kind::Archive,
    }
}

/// The content type of the part that `_rels/.rels` names as the document.
fn main_content_type(package: &Package, budget: &mut Budget, limits: &Limits) -> Result<Option<String>, Rejection> {
    let (Some(rels), Some(types)) = (package.find("_rels/.rels"), package.find("[Content_Types].xml")) else {
        return Ok(None);
    };
    let text = package.read_text(rels, budget)?;
    let Some(main) = first(&text, &rels.name, limits, |tag| {
        let kind = tag.attribute("Type")?;
        (tag.local_name() == "Relationship" && kind.ends_with("/officeDocument")).then(|| tag.attribute("Target"))?
    })?
    else {
        return Ok(None);
    };
    let path = format!("/{}", main.trim_start_matches('/'));
    let text = package.read_text(types, budget)?;
    first(&text, &types.name, limits, |tag| {
        let matches = tag.local_name() == "Override" && tag.attribute("PartName")?.eq_ignore_ascii_case(&path);
        matches.then(|| tag.attribute("ContentType"))?
    })
}

/// The first value that `pick` returns for a tag of a part.
fn first<'x>(
    text: &'x str,
    part: &str,
    limits: &Limits,
    pick: impl Fn(xml::Token<'x>) -> Option<std::borrow::Cow<'x, str>>,
) -> Result<Option<String>, Rejection> {
    let mut tokens = Tokens::new(text, limits.depth);
    while let Some(token) = tokens.read().map_err(|why| malformed(part, &why))? {
        if let (TokenKind::Open | TokenKind::Empty, Some(found)) = (token.kind, pick(token)) {
            return Ok(Some(found.into_owned()));
        }
    }
    Ok(None)
}
