//! PNG: reads the chunks and the size, decodes the image.

use std::io::Cursor;

use pipeline::Rejection;

use super::byte_order::u32_be;
use super::format::Format;
use super::header::Header;
use super::limits::{MAX_WORKING_BYTES, check_working_bytes};
use super::rejections::{corrupt, truncated};
use super::rgb::{self, Rgb};

/// A PNG is a signature of 8 bytes and chunks of length, type, data and CRC; the first is IHDR.
pub(super) fn probe(bytes: &[u8]) -> Result<Header, Rejection> {
    let Some(start) = bytes.get(8..24) else { return Err(truncated(Format::Png, bytes)) };
    if &start[4..8] != b"IHDR" {
        return Err(corrupt("the first chunk of a PNG must be IHDR"));
    }
    let (Some(width), Some(height)) = (u32_be(bytes, 16), u32_be(bytes, 20)) else {
        return Err(truncated(Format::Png, bytes));
    };
    Header::new(Format::Png, width, height, chunks(bytes).exif)
}

/// The chunks of interest.
struct Chunks<'b> {
    exif: Option<&'b [u8]>,
    /// Whether the last chunk is present.
    complete: bool,
}

fn chunks(bytes: &[u8]) -> Chunks<'_> {
    let mut found = Chunks { exif: None, complete: false };
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

/// Decodes a PNG, or the default image of an APNG. Text and colour profiles are not inflated; checksums are verified.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Rgb, Rejection> {
    if !chunks(bytes).complete {
        return Err(truncated(Format::Png, bytes));
    }
    let mut options = ::png::DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    options.set_ignore_adler32(false);
    let mut decoder = ::png::Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(::png::Limits { bytes: MAX_WORKING_BYTES as usize });
    decoder.set_transformations(::png::Transformations::EXPAND | ::png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(corrupt)?;
    let size = reader.output_buffer_size().ok_or_else(|| corrupt("its size cannot be computed"))?;
    check_working_bytes(size as u64)?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(corrupt)?;
    if (frame.width, frame.height) != (header.width, header.height) {
        return Err(corrupt(format!("its first frame has {} × {} pixels", frame.width, frame.height)));
    }
    let (width, height) = (header.width, header.height);
    match frame.color_type {
        ::png::ColorType::Grayscale => rgb::from_grey(width, height, &pixels),
        ::png::ColorType::GrayscaleAlpha => rgb::from_grey_alpha(width, height, &pixels),
        ::png::ColorType::Rgb => Rgb::new(width, height, pixels),
        ::png::ColorType::Rgba => rgb::from_rgba(width, height, pixels),
        ::png::ColorType::Indexed => Err(corrupt("its palette was not applied")),
    }
}
