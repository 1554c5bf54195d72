//! Decodes an image file to upright RGB pixels: checks limits, selects the format's decoder, scales, rotates, hashes.

use pipeline::{Digest, Image, Rejection};
use sha2::{Digest as _, Sha256};

use super::format::Format;
use super::header::Header;
use super::limits::Limits;
use super::probe::probe;
use super::rgb::{self, Rgb};
use super::{gif, jpeg, png, webp};

/// Decodes an image. Blocks the thread for 1 to 6 ms per megapixel.
///
/// With `min_size` (width and height of the upright image) it is divided by 8, 4 or 2 as long as both sides stay at
/// least that long: a JPEG during decoding, the others right after.
///
/// # Errors
/// 413 beyond a limit, before any pixel buffer is allocated; 415 for a format that is not accepted; 422 for a file that
/// is empty, truncated or corrupt.
pub fn decode(bytes: &[u8], limits: &Limits, min_size: Option<(u32, u32)>) -> Result<Image, Rejection> {
    limits.check_bytes(bytes)?;
    let header = probe(bytes)?;
    limits.check_header(&header)?;
    let divisor = rgb::divisor(header.width, header.height, stored_min(&header, min_size));
    let scaled = match header.format {
        Format::Jpeg => {
            let decoded = jpeg::decode(bytes, divisor)?;
            // A JPEG that stores RGB is decoded at full size.
            let already = if decoded.width == header.width { 1 } else { divisor };
            rgb::shrink(decoded, divisor / already)?
        }
        Format::Png => rgb::shrink(png::decode(bytes, &header)?, divisor)?,
        Format::Webp => rgb::shrink(webp::decode(bytes, &header)?, divisor)?,
        Format::Gif => rgb::shrink(gif::decode(bytes)?, divisor)?,
    };
    let Rgb { width, height, pixels } = rgb::upright(scaled, header.orientation);
    Ok(Image { width, height, pixels, sha256: Digest(Sha256::digest(bytes).into()), room: None })
}

/// Upper bound of the memory that decoding takes in addition to the file, its result included, in bytes. Reads only the
/// header.
///
/// # Errors
/// As [`decode`], as far as the header shows.
pub fn working_bytes(bytes: &[u8], limits: &Limits, min_size: Option<(u32, u32)>) -> Result<u64, Rejection> {
    /// Four bytes per pixel as some decoders produce them, and three per pixel of the result.
    const BYTES_PER_PIXEL: u64 = 7;
    limits.check_bytes(bytes)?;
    let header = probe(bytes)?;
    limits.check_header(&header)?;
    let divisor = rgb::divisor(header.width, header.height, stored_min(&header, min_size));
    match header.format {
        Format::Jpeg => jpeg::working_bytes(bytes, divisor),
        Format::Png | Format::Webp | Format::Gif => {
            Ok(u64::from(header.width) * u64::from(header.height) * BYTES_PER_PIXEL)
        }
    }
}

/// The minimum size in the stored orientation.
fn stored_min(header: &Header, min_size: Option<(u32, u32)>) -> Option<(u32, u32)> {
    let swaps = rgb::swaps_sides(header.orientation);
    min_size.map(|(width, height)| if swaps { (height, width) } else { (width, height) })
}
