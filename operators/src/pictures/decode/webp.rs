//! WebP (RFC 9649): reads the chunks and the size, decodes the first frame.

use std::io::Cursor;

use image::ImageDecoder as _;
use image::codecs::webp::WebPDecoder;
use pipeline::Rejection;

use super::byte_order::{u16_le, u32_le};
use super::format::Format;
use super::header::Header;
use super::rejections::{corrupt, truncated};
use super::rgb::{self, Rgb};

/// A WebP is a RIFF of chunks. The first is VP8, VP8L, or VP8X with the size of the canvas.
pub(super) fn probe(bytes: &[u8]) -> Result<Header, Rejection> {
    let cut = || truncated(Format::Webp, bytes);
    let first = bytes.get(12..16).ok_or_else(cut)?;
    let (width, height) = match first {
        b"VP8X" => {
            let canvas = bytes.get(24..30).ok_or_else(cut)?;
            let side = |at: usize| 1 + u32::from_le_bytes([canvas[at], canvas[at + 1], canvas[at + 2], 0]);
            (side(0), side(3))
        }
        _ => frame_size(bytes, 12).ok_or_else(|| corrupt("the WebP contains no image"))?,
    };
    let chunks = chunks_of(bytes);
    if let Some((inner_width, inner_height)) = chunks.frame
        && (inner_width > width || inner_height > height)
    {
        let what = format!("a WebP of {width} × {height} contains a frame of {inner_width} × {inner_height}");
        return Err(corrupt(what));
    }
    Header::new(Format::Webp, width, height, chunks.exif)
}

struct Chunks<'b> {
    exif: Option<&'b [u8]>,
    /// Size of the first frame, wherever it is.
    frame: Option<(u32, u32)>,
}

fn chunks_of(bytes: &[u8]) -> Chunks<'_> {
    /// Frame position, size and duration before the chunks inside an ANMF.
    const ANMF_HEADER: usize = 16;
    let mut found = Chunks { exif: None, frame: None };
    let mut at = 12;
    while let (Some(kind), Some(length)) = (bytes.get(at..at + 4), u32_le(bytes, at + 4)) {
        match kind {
            b"EXIF" => found.exif = bytes.get(at + 8..).and_then(|rest| rest.get(..length as usize)).or(found.exif),
            b"VP8 " | b"VP8L" => found.frame = found.frame.or_else(|| frame_size(bytes, at)),
            b"ANMF" if found.frame.is_none() => {
                let inside = at + 8 + ANMF_HEADER;
                let after_alpha = || {
                    let alpha = u32_le(bytes, inside + 4)? as usize;
                    frame_size(bytes, inside.checked_add(8)?.checked_add(alpha)?.checked_add(alpha % 2)?)
                };
                found.frame = frame_size(bytes, inside).or_else(after_alpha);
            }
            _ => {}
        }
        let length = length as usize;
        at = at.saturating_add(8).saturating_add(length).saturating_add(length % 2);
    }
    found
}

/// The size of the VP8 or VP8L frame whose chunk begins at `at` (RFC 9649, sections 2.5 and 2.6).
fn frame_size(bytes: &[u8], at: usize) -> Option<(u32, u32)> {
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

/// Whether the file has as many bytes as its RIFF header declares.
fn is_complete(bytes: &[u8]) -> bool {
    u32_le(bytes, 4).is_some_and(|length| bytes.len() as u64 >= u64::from(length) + 8)
}

/// Decodes a lossy or lossless WebP, or the first frame of an animation.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Rgb, Rejection> {
    if !is_complete(bytes) {
        return Err(truncated(Format::Webp, bytes));
    }
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(corrupt)?;
    if decoder.dimensions() != (header.width, header.height) {
        return Err(corrupt("its size differs from the one in its header"));
    }
    rgb::read(decoder)
}
