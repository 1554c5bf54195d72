//! The image header: format, stored size and EXIF orientation.

use exif::{In, Tag};
use pipeline::Rejection;

use super::format::Format;
use super::rejections::corrupt;

/// Bytes of EXIF that are parsed: the orientation is among its first fields, thumbnails follow. The parser allocates up
/// to fifty times what it reads.
const MAX_EXIF_BYTES: usize = 64 << 10;

/// What the header of a file declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// By magic bytes.
    pub format: Format,
    /// Columns as stored, before the orientation is applied.
    pub width: u32,
    /// Rows as stored.
    pub height: u32,
    /// EXIF orientation, 1 (upright) to 8; 1 where the file has none.
    pub orientation: u8,
}

impl Header {
    /// # Errors
    /// 422 if a side is zero.
    pub(super) fn new(format: Format, width: u32, height: u32, exif: Option<&[u8]>) -> Result<Self, Rejection> {
        if width == 0 || height == 0 {
            return Err(corrupt(format!("its header declares {width} × {height} pixels")));
        }
        Ok(Self { format, width, height, orientation: exif.map_or(1, orientation) })
    }
}

/// The orientation in a TIFF structure; 1 if it is absent or invalid. Bad metadata never makes an image unusable.
fn orientation(tiff: &[u8]) -> u8 {
    let tiff = tiff.strip_prefix(b"Exif\0\0").unwrap_or(tiff);
    let tiff = &tiff[..tiff.len().min(MAX_EXIF_BYTES)];
    let mut reader = exif::Reader::new();
    reader.continue_on_error(true);
    let read = reader.read_raw(tiff.to_vec()).or_else(|error| error.distill_partial_result(|_| ()));
    let value = read.ok().and_then(|exif| exif.get_field(Tag::Orientation, In::PRIMARY)?.value.get_uint(0));
    value.and_then(|value| u8::try_from(value).ok()).filter(|value| (1..=8).contains(value)).unwrap_or(1)
}
