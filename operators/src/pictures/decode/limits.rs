//! Image limits: file size, side length, megapixels, formats, and the memory of one decode.

use pipeline::Rejection;
use pipeline::spec::ByteSize;

use super::format::{Format, unsupported};
use super::header::Header;

/// Upper bound of the buffers of one decode, in bytes: a 50-megapixel RGBA image fits. An image with deeper pixels, or
/// one whose decoder also stores coefficients, must be smaller.
pub(super) const MAX_WORKING_BYTES: u64 = 256 << 20;

/// Which images are accepted.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest file.
    pub bytes: ByteSize,
    /// Longest side, in pixels.
    pub side: u32,
    /// Most pixels, in millions.
    pub megapixels: u32,
    /// Accepted formats.
    pub formats: Vec<Format>,
}

impl Limits {
    /// Rejects a file that is too long.
    pub(super) fn check_bytes(&self, bytes: &[u8]) -> Result<(), Rejection> {
        if bytes.len() as u64 <= self.bytes.0 {
            return Ok(());
        }
        let detail = format!("the image has {} bytes; the limit is {}", bytes.len(), self.bytes);
        Err(Rejection::too_large("image_too_many_bytes", detail))
    }

    /// Rejects an image by its format, sides and pixels.
    pub(super) fn check_header(&self, header: &Header) -> Result<(), Rejection> {
        let Header { format, width, height, .. } = *header;
        if !self.formats.contains(&format) {
            return Err(unsupported(Some(format.name()), &self.formats));
        }
        if width > self.side || height > self.side {
            let detail = format!("the image has {width} × {height} pixels; the limit is {} per side", self.side);
            return Err(Rejection::too_large("image_too_wide", detail));
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > u64::from(self.megapixels) * 1_000_000 {
            let millions = pixels as f64 / 1e6;
            let detail = format!(
                "the image has {width} × {height} = {millions:.1} megapixels; the limit is {}",
                self.megapixels
            );
            return Err(Rejection::too_large("image_too_many_pixels", detail));
        }
        Ok(())
    }
}

/// Rejects an image that is within the limits but takes too much memory to decode.
pub(super) fn check_working_bytes(bytes: u64) -> Result<(), Rejection> {
    if bytes <= MAX_WORKING_BYTES {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    let detail = format!(
        "decoding the image takes {} MiB; the limit is {} MiB: save it with fewer pixels or 8 bits per colour",
        mib(bytes),
        mib(MAX_WORKING_BYTES)
    );
    Err(Rejection::too_large("image_too_much_memory", detail))
}
