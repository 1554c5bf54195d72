//! What a file is and how large, from its first bytes and its chunk headers, without touching a pixel.

use exif::{In, Tag};
use pipeline::Rejection;
use pipeline::spec::ByteSize;
use serde::Deserialize;

use super::jpeg;

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
    /// Every format, in the order of how often it is met.
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
}

/// What the header of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// By magic bytes.
    pub format: Format,
    /// Columns as stored, before the orientation is applied.
    pub width: u32,
    /// Rows as stored.
    pub height: u32,
    /// EXIF orientation, 1 (upright) to 8; 1 where the file says nothing.
    pub orientation: u8,
}

/// What is taken.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest file.
    pub bytes: ByteSize,
    /// Longest side, in pixels.
    pub side: u32,
    /// Most pixels, in millions.
    pub megapixels: u32,
    /// Formats taken.
    pub formats: Vec<Format>,
}

/// EXIF is read no further, in bytes: the orientation is among its first fields, what follows are thumbnails. The parser
/// keeps up to fifty times what it reads.
const MAX_EXIF_BYTES: usize = 64 << 10;

/// 422: the file says what it is and then does not hold to it.
pub(super) fn corrupt(what: impl std::fmt::Display) -> Rejection {
    Rejection::unusable("image_corrupt", format!("the picture is corrupt: {what}"))
}

/// 422: the file ends before its picture does.
pub(super) fn truncated(format: Format, bytes: &[u8]) -> Rejection {
    let detail =
        format!("the {} ends after {} bytes, before its picture does: send it again", format.name(), bytes.len());
    Rejection::unusable("image_truncated", detail)
}

impl Limits {
    /// Refuses a file by its length.
    pub(super) fn check_bytes(&self, bytes: &[u8]) -> Result<(), Rejection> {
        if bytes.len() as u64 <= self.bytes.0 {
            return Ok(());
        }
        let detail = format!("the picture has {} bytes, at most {} are taken", bytes.len(), self.bytes);
        Err(Rejection::too_large("image_too_many_bytes", detail))
    }

    /// Refuses a picture by its format, sides and pixels.
    pub(super) fn check_header(&self, header: &Header) -> Result<(), Rejection> {
        let Header { format, width, height, .. } = *header;
        if !self.formats.contains(&format) {
            return Err(unsupported(format.name(), &self.formats));
        }
        if width > self.side || height > self.side {
            let detail = format!("the picture has {width} × {height} pixels, at most {} a side are taken", self.side);
            return Err(Rejection::too_large("image_too_wide", detail));
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > u64::from(self.megapixels) * 1_000_000 {
            let millions = pixels as f64 / 1e6;
            let detail = format!(
                "the picture has {width} × {height} = {millions:.1} megapixels, at most {} are taken",
                self.megapixels
            );
            return Err(Rejection::too_large("image_too_many_pixels", detail));
        }
        Ok(())
    }
}

fn unsupported(what: &str, taken: &[Format]) -> Rejection {
    let names: Vec<&str> = taken.iter().map(|format| format.name()).collect();
    let hint = match what {
        "HEIC" => ": on an iPhone choose Settings, Camera, Formats, Most Compatible, or share it as JPEG",
        _ => "",
    };
    let detail = format!("this is {what}, a picture must be {}{hint}", names.join(", "));
    Rejection::unsupported("image_type", detail)
}

/// Reads the header of a picture. Takes time in proportion to the number of chunks, and no memory.
///
/// # Errors
/// 422 for an empty file or a broken header, 415 for whatever is none of the four formats.
pub fn probe(bytes: &[u8]) -> Result<Header, Rejection> {
    match sniff(bytes)? {
        Format::Jpeg => {
            let jpeg = jpeg::read_header(bytes)?;
            header(Format::Jpeg, jpeg.frame.width.into(), jpeg.frame.height.into(), jpeg.exif)
        }
        Format::Png => probe_png(bytes),
        Format::Webp => probe_webp(bytes),
        Format::Gif => {
            let (Some(width), Some(height)) = (u16_le(bytes, 6), u16_le(bytes, 8)) else {
                return Err(truncated(Format::Gif, bytes));
            };
            header(Format::Gif, width, height, None)
        }
    }
}

fn header(format: Format, width: u32, height: u32, exif: Option<&[u8]>) -> Result<Header, Rejection> {
    if width == 0 || height == 0 {
        return Err(corrupt(format!("its header says {width} × {height} pixels")));
    }
    Ok(Header { format, width, height, orientation: exif.map_or(1, orientation) })
}

/// The orientation in a TIFF structure, 1 where there is none or it makes no sense. Metadata never makes a picture bad.
fn orientation(tiff: &[u8]) -> u8 {
    let tiff = tiff.strip_prefix(b"Exif\0\0").unwrap_or(tiff);
    let tiff = &tiff[..tiff.len().min(MAX_EXIF_BYTES)];
    let mut reader = exif::Reader::new();
    reader.continue_on_error(true);
    let read = reader.read_raw(tiff.to_vec()).or_else(|error| error.distill_partial_result(|_| ()));
    let value = read.ok().and_then(|exif| exif.get_field(Tag::Orientation, In::PRIMARY)?.value.get_uint(0));
    value.and_then(|value| u8::try_from(value).ok()).filter(|value| (1..=8).contains(value)).unwrap_or(1)
}

/// PNG: chunks of length, type, data and CRC after a signature of 8 bytes; the first is IHDR.
fn probe_png(bytes: &[u8]) -> Result<Header, Rejection> {
    let Some(start) = bytes.get(8..24) else { return Err(truncated(Format::Png, bytes)) };
    if &start[4..8] != b"IHDR" {
        return Err(corrupt("a PNG begins with IHDR, this one does not"));
    }
    let (Some(width), Some(height)) = (u32_be(bytes, 16), u32_be(bytes, 20)) else {
        return Err(truncated(Format::Png, bytes));
    };
    header(Format::Png, width, height, png_chunks(bytes).exif)
}

/// What is found by going from chunk to chunk of a PNG.
pub(super) struct PngChunks<'b> {
    exif: Option<&'b [u8]>,
    /// Whether the last chunk is there.
    pub(super) complete: bool,
}

pub(super) fn png_chunks(bytes: &[u8]) -> PngChunks<'_> {
    let mut found = PngChunks { exif: None, complete: false };
    let mut at = 8;
    while let (Some(length), Some(kind)) = (u32_be(bytes, at), bytes.get(at + 4..at + 8)) {
        let data = bytes.get(at + 8..).and_then(|rest| rest.get(..length as usize));
        match kind {
            b"eXIf" => found.exif = data.or(found.exif),
            b"IEND" => found.complete = bytes.len() >= at + 12,
            _ => {}
        }
        if kind == b"IEND" {
            break;
        }
        at = at.saturating_add(12).saturating_add(length as usize);
    }
    found
}

/// WebP: a RIFF of chunks. The first is VP8, VP8L, or VP8X with the size of the canvas.
fn probe_webp(bytes: &[u8]) -> Result<Header, Rejection> {
    let cut = || truncated(Format::Webp, bytes);
    let first = bytes.get(12..16).ok_or_else(cut)?;
    let (width, height) = match first {
        b"VP8X" => {
            let canvas = bytes.get(24..30).ok_or_else(cut)?;
            let side = |at: usize| 1 + u32::from_le_bytes([canvas[at], canvas[at + 1], canvas[at + 2], 0]);
            (side(0), side(3))
        }
        _ => webp_frame(bytes, 12).ok_or_else(|| corrupt("it is a WebP without a picture"))?,
    };
    let chunks = webp_chunks(bytes);
    if let Some((inner_width, inner_height)) = chunks.frame
        && (inner_width > width || inner_height > height)
    {
        let what = format!("a WebP of {width} × {height} holds a frame of {inner_width} × {inner_height}");
        return Err(corrupt(what));
    }
    header(Format::Webp, width, height, chunks.exif)
}

struct WebpChunks<'b> {
    exif: Option<&'b [u8]>,
    /// Size of the first frame, wherever it is.
    frame: Option<(u32, u32)>,
}

fn webp_chunks(bytes: &[u8]) -> WebpChunks<'_> {
    /// Frame position, size and duration before the chunks inside an ANMF.
    const ANMF_HEADER: usize = 16;
    let mut found = WebpChunks { exif: None, frame: None };
    let mut at = 12;
    while let (Some(kind), Some(length)) = (bytes.get(at..at + 4), u32_le(bytes, at + 4)) {
        match kind {
            b"EXIF" => found.exif = bytes.get(at + 8..).and_then(|rest| rest.get(..length as usize)).or(found.exif),
            b"VP8 " | b"VP8L" => found.frame = found.frame.or_else(|| webp_frame(bytes, at)),
            b"ANMF" if found.frame.is_none() => {
                let inside = at + 8 + ANMF_HEADER;
                let after_alpha = || {
                    let alpha = u32_le(bytes, inside + 4)? as usize;
                    webp_frame(bytes, inside.checked_add(8)?.checked_add(alpha)?.checked_add(alpha % 2)?)
                };
                found.frame = webp_frame(bytes, inside).or_else(after_alpha);
            }
            _ => {}
        }
        let length = length as usize;
        at = at.saturating_add(8).saturating_add(length).saturating_add(length % 2);
    }
    found
}

/// The size of the VP8 or VP8L frame whose chunk begins at `at` (RFC 9649, sections 2.5 and 2.6).
fn webp_frame(bytes: &[u8], at: usize) -> Option<(u32, u32)> {
    let data = bytes.get(at.checked_add(8)?..)?;
    match bytes.get(at..at + 4)? {
        b"VP8 " if data.get(3..6)? == [0x9d, 0x01, 0x2a] => {
            Some((u16_le(data, 6)? & 0x3fff, u16_le(data, 8)? & 0x3fff))
        }
        b"VP8L" if *data.first()? == 0x2f => {
            let packed = u32_le(data, 1)?;
            Some((1 + (packed & 0x3fff), 1 + ((packed >> 14) & 0x3fff)))
        }
        _ => None,
    }
}

/// Whether as many bytes are there as the RIFF header says.
pub(super) fn webp_complete(bytes: &[u8]) -> bool {
    u32_le(bytes, 4).is_some_and(|length| bytes.len() as u64 >= u64::from(length) + 8)
}

/// The format by magic bytes, or 415 with the name of what it is instead.
fn sniff(bytes: &[u8]) -> Result<Format, Rejection> {
    if bytes.is_empty() {
        return Err(Rejection::unusable("image_empty", "the picture has no bytes"));
    }
    let riff = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Ok(Format::Jpeg),
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Ok(Format::Png),
        _ if riff => Ok(Format::Webp),
        _ if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") => Ok(Format::Gif),
        _ => Err(unsupported(foreign(bytes), &Format::ALL)),
    }
}

/// A name for what is no picture this stage decodes.
fn foreign(bytes: &[u8]) -> &'static str {
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
        return match bytes.get(8..12) {
            Some(b"avif" | b"avis") => "AVIF",
            Some(b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"mif1" | b"msf1") => "HEIC",
            _ => "a video (MP4)",
        };
    }
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return name;
    }
    markup(bytes).unwrap_or("no picture")
}

/// Text that begins like a document: HTML, SVG, other XML, a script.
fn markup(bytes: &[u8]) -> Option<&'static str> {
    /// A prolog and comments may come before the element that tells.
    const LOOKED_AT: usize = 1024;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let start = &bytes[..bytes.len().min(LOOKED_AT)];
    let text = start.trim_ascii_start().to_ascii_lowercase();
    let holds = |needle: &[u8]| memchr::memmem::find(&text, needle).is_some();
    match text.first()? {
        b'<' if holds(b"<svg") => Some("SVG"),
        b'<' if text.starts_with(b"<?php") => Some("PHP"),
        b'<' if holds(b"<html") || holds(b"<!doctype html") || holds(b"<script") || holds(b"<body") => Some("HTML"),
        b'<' => Some("XML or HTML"),
        b'{' | b'[' if std::str::from_utf8(start).is_ok() => Some("JSON"),
        b'#' if text.starts_with(b"#!") => Some("a script"),
        _ => None,
    }
}

fn u16_le(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u32::from(u16::from_le_bytes(field.try_into().ok()?)))
}

fn u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u32_be(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
