//! Image formats, and format detection by the first bytes of a file (magic numbers).

use pipeline::Rejection;
use serde::Deserialize;

/// A format this stage decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "named after the formats they stand for")]
pub enum Format {
    Jpeg,
    Png,
    Webp,
    Gif,
}

impl Format {
    /// Every format, most frequent first.
    pub const ALL: [Self; 4] = [Self::Jpeg, Self::Png, Self::Webp, Self::Gif];

    /// The name as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Webp => "WebP",
            Self::Gif => "GIF",
        }
    }

    /// Detects the format by magic bytes.
    ///
    /// # Errors
    /// 422 for an empty file; 415, naming what the file is instead where that is recognised.
    pub(super) fn detect(bytes: &[u8]) -> Result<Self, Rejection> {
        if bytes.is_empty() {
            return Err(Rejection::unusable("image_empty", "the image file is empty; upload it again"));
        }
        let riff = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Ok(Self::Png),
            _ if riff => Ok(Self::Webp),
            _ if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") => Ok(Self::Gif),
            _ => Err(unsupported(other_type(bytes), &Self::ALL)),
        }
    }
}

/// 415: the file is of a type that is not accepted. `found` names that type where it was recognised.
pub(super) fn unsupported(found: Option<&str>, accepted: &[Format]) -> Rejection {
    let hint = match found {
        Some("HEIC") => "; on an iPhone choose Settings, Camera, Formats, Most Compatible, or share it as JPEG",
        _ => "",
    };
    let found = found.map_or("not an image".to_owned(), |name| format!("this is {name}"));
    Rejection::unsupported("image_type", format!("{found}; expected {}{hint}", alternatives(accepted)))
}

/// `JPEG, PNG, WebP or GIF`.
fn alternatives(formats: &[Format]) -> String {
    let names: Vec<&str> = formats.iter().map(|format| format.name()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "no format".to_owned(),
    }
}

/// The name of a file type that this stage does not decode, for the rejection.
fn other_type(bytes: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 15] = [
        (b"%PDF-", "PDF"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"BM", "BMP"),
        (b"8BPS", "a Photoshop file"),
        (b"\0\0\x01\0", "an icon (ICO)"),
        (b"\0\0\0\x0cjP  ", "JPEG 2000"),
        (b"\0\0\0\x0cJXL ", "JPEG XL"),
        (b"\xff\x0a", "JPEG XL"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"\x7fELF", "a program"),
        (b"MZ", "a program"),
    ];
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some(match bytes.get(8..12) {
            Some(b"avif" | b"avis") => "AVIF",
            Some(b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"mif1" | b"msf1") => "HEIC",
            _ => "a video (MP4)",
        });
    }
    let magic = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name);
    magic.or_else(|| markup(bytes))
}

/// Text that begins like a document: HTML, SVG, other XML, a script.
fn markup(bytes: &[u8]) -> Option<&'static str> {
    /// Bytes examined: a prolog and comments may precede the element that identifies the type.
    const HEAD: usize = 1024;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let start = &bytes[..bytes.len().min(HEAD)];
    let text = start.trim_ascii_start().to_ascii_lowercase();
    let contains = |needle: &[u8]| memchr::memmem::find(&text, needle).is_some();
    match text.first()? {
        b'<' if contains(b"<svg") => Some("SVG"),
        b'<' if text.starts_with(b"<?php") => Some("PHP"),
        b'<' if [&b"<html"[..], b"<!doctype html", b"<script", b"<body"].into_iter().any(contains) => Some("HTML"),
        b'<' => Some("XML or HTML"),
        b'{' | b'[' if std::str::from_utf8(start).is_ok() => Some("JSON"),
        b'#' if text.starts_with(b"#!") => Some("a script"),
        _ => None,
    }
}
