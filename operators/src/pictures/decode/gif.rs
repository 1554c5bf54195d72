//! GIF: reads the size, decodes the first frame.

use std::io::Cursor;

use image::ImageDecoder as _;
use image::codecs::gif::GifDecoder;
use pipeline::Rejection;

use super::byte_order::u16_le;
use super::format::Format;
use super::header::Header;
use super::limits::MAX_WORKING_BYTES;
use super::rejections::{corrupt, truncated};
use super::rgb::{self, Rgb};

pub(super) fn probe(bytes: &[u8]) -> Result<Header, Rejection> {
    let (Some(width), Some(height)) = (u16_le(bytes, 6), u16_le(bytes, 8)) else {
        return Err(truncated(Format::Gif, bytes));
    };
    Header::new(Format::Gif, width, height, None)
}

/// Decodes the first frame on its canvas; the rest of the canvas is transparent.
pub(super) fn decode(bytes: &[u8]) -> Result<Rgb, Rejection> {
    let mut decoder = GifDecoder::new(Cursor::new(bytes)).map_err(corrupt)?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_WORKING_BYTES);
    decoder.set_limits(limits).map_err(corrupt)?;
    rgb::read(decoder)
}
