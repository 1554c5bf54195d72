//! From the bytes of a file to an upright RGB picture: limits, the right decoder, scaling, orientation, digest.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::webp::WebPDecoder;
use pipeline::{Digest, Image, Rejection};
use sha2::{Digest as _, Sha256};

use super::header::{self, Format, Header, Limits, corrupt, probe, truncated};
use super::jpeg;
use super::rgb::{self, Rgb};

/// Most memory the buffers of one decode may take, in bytes: a 50-megapixel RGBA picture has room, whatever declares
/// deeper pixels or keeps coefficients besides has to be smaller.
const MAX_WORKING_BYTES: u64 = 256 << 20;

/// Decodes a picture. Blocks for as long as it takes: 1 to 6 ms per megapixel.
///
/// With `min_size` (width and height of the upright picture) it is divided by 8, 4 or 2 as long as both sides stay at
/// least that long: a JPEG while decoding, the others right after.
///
/// # Errors
/// 413 beyond a limit, before any pixel buffer is made; 415 for a format that is not taken; 422 for a file that is empty,
/// cut short or corrupt.
pub fn decode(bytes: &[u8], limits: &Limits, min_size: Option<(u32, u32)>) -> Result<Image, Rejection> {
    limits.check_bytes(bytes)?;
    let header = probe(bytes)?;
    limits.check_header(&header)?;
    let divisor = rgb::divisor(header.width, header.height, stored_min(&header, min_size));
    let scaled = match header.format {
        Format::Jpeg => {
            let decoded = jpeg::decode(bytes, divisor)?;
            // A JPEG that says it is RGB comes at its full size.
            let done = if decoded.width == header.width { 1 } else { divisor };
            rgb::shrink(decoded, divisor / done)?
        }
        Format::Png => rgb::shrink(decode_png(bytes, &header)?, divisor)?,
        Format::Webp => rgb::shrink(decode_webp(bytes, &header)?, divisor)?,
        Format::Gif => rgb::shrink(decode_gif(bytes)?, divisor)?,
    };
    let Rgb { width, height, pixels } = rgb::upright(scaled, header.orientation);
    Ok(Image { width, height, pixels, sha256: Digest(Sha256::digest(bytes).into()), room: None })
}

/// Most memory that decoding takes beside the file, its result included, in bytes. Reads the header alone.
///
/// # Errors
/// As [`decode`], for what the header shows.
pub fn working_bytes(bytes: &[u8], limits: &Limits, min_size: Option<(u32, u32)>) -> Result<u64, Rejection> {
    /// Four bytes a pixel as some decoders make them, and three as they go on.
    const WHOLE: u64 = 7;
    limits.check_bytes(bytes)?;
    let header = probe(bytes)?;
    limits.check_header(&header)?;
    let divisor = rgb::divisor(header.width, header.height, stored_min(&header, min_size));
    match header.format {
        Format::Jpeg => jpeg::working_bytes(bytes, divisor),
        Format::Png | Format::Webp | Format::Gif => Ok(u64::from(header.width) * u64::from(header.height) * WHOLE),
    }
}

/// The least size as the file stores its pixels.
fn stored_min(header: &Header, min_size: Option<(u32, u32)>) -> Option<(u32, u32)> {
    let swaps = rgb::swaps_sides(header.orientation);
    min_size.map(|(width, height)| if swaps { (height, width) } else { (width, height) })
}

/// Refuses a picture whose decoding would take too much memory, although its pixels are within the limits.
pub(super) fn check_working_bytes(bytes: u64) -> Result<(), Rejection> {
    if bytes <= MAX_WORKING_BYTES {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    let detail = format!(
        "decoding the picture takes {} MiB, at most {} are given: save it with fewer pixels or 8 bits per colour",
        mib(bytes),
        mib(MAX_WORKING_BYTES)
    );
    Err(Rejection::too_large("image_too_much_memory", detail))
}

/// PNG, and the default image of an APNG. Texts and colour profiles are not inflated; checksums are compared.
fn decode_png(bytes: &[u8], header: &Header) -> Result<Rgb, Rejection> {
    if !header::png_chunks(bytes).complete {
        return Err(truncated(Format::Png, bytes));
    }
    let mut options = png::DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    options.set_ignore_adler32(false);
    let mut decoder = png::Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(png::Limits { bytes: MAX_WORKING_BYTES as usize });
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
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
        png::ColorType::Grayscale => rgb::from_grey(width, height, &pixels),
        png::ColorType::GrayscaleAlpha => rgb::from_grey_alpha(width, height, &pixels),
        png::ColorType::Rgb => Rgb::new(width, height, pixels),
        png::ColorType::Rgba => rgb::from_rgba(width, height, pixels),
        png::ColorType::Indexed => Err(corrupt("its palette was not applied")),
    }
}

/// WebP, lossy or lossless; of an animation the first frame.
fn decode_webp(bytes: &[u8], header: &Header) -> Result<Rgb, Rejection> {
    if !header::webp_complete(bytes) {
        return Err(truncated(Format::Webp, bytes));
    }
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(corrupt)?;
    if decoder.dimensions() != (header.width, header.height) {
        return Err(corrupt("its size is not the one in its header"));
    }
    read(decoder)
}

/// GIF; the first frame on the canvas, transparent around it.
fn decode_gif(bytes: &[u8]) -> Result<Rgb, Rejection> {
    let mut decoder = GifDecoder::new(Cursor::new(bytes)).map_err(corrupt)?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_WORKING_BYTES);
    decoder.set_limits(limits).map_err(corrupt)?;
    read(decoder)
}

fn read(decoder: impl ImageDecoder) -> Result<Rgb, Rejection> {
    let (width, height) = decoder.dimensions();
    // A lossless WebP is decoded to four bytes a pixel, whatever comes out.
    check_working_bytes(u64::from(width) * u64::from(height) * 4)?;
    let colour = decoder.color_type();
    let size = usize::try_from(decoder.total_bytes()).map_err(corrupt)?;
    let mut pixels = vec![0; size];
    decoder.read_image(&mut pixels).map_err(corrupt)?;
    match colour {
        image::ColorType::Rgb8 => Rgb::new(width, height, pixels),
        image::ColorType::Rgba8 => rgb::from_rgba(width, height, pixels),
        other => Err(corrupt(format!("its colours came out as {other:?}"))),
    }
}
