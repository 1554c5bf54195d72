//! Decodes a JPEG, at full size or at a half, a quarter or an eighth, by one of three decoders:
//! - grey, YCbCr and RGB at full size: zune-jpeg in strict mode;
//! - a reduced size of the common kind (one sequential scan of grey or YCbCr): [`reduced_size`];
//! - a reduced size of progressive files, four colours, and files that zune-jpeg decodes wrongly: jpeg-decoder.

use pipeline::Rejection;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::markers::{Frame, Jpeg, Scan, read_header};
use super::reduced_size;
use crate::pictures::decode::format::Format;
use crate::pictures::decode::header::Header;
use crate::pictures::decode::limits::check_working_bytes;
use crate::pictures::decode::rejections::corrupt;
use crate::pictures::decode::rgb::{self, Rgb};

/// Reads the header of a JPEG.
pub(in crate::pictures::decode) fn probe(bytes: &[u8]) -> Result<Header, Rejection> {
    let jpeg = read_header(bytes)?;
    Header::new(Format::Jpeg, jpeg.frame.width.into(), jpeg.frame.height.into(), jpeg.exif)
}

/// Upper bound of the memory that [`decode`] takes, in bytes, as far as the markers before the first scan show.
pub(in crate::pictures::decode) fn working_bytes(bytes: &[u8], divisor: u32) -> Result<u64, Rejection> {
    /// Four planes and three bytes of the result.
    const BYTES_PER_PIXEL: u64 = 7;
    let jpeg = read_header(bytes)?;
    let divisor = if jpeg.is_rgb() { 1 } else { divisor };
    let pixels = u64::from(jpeg.frame.width) * u64::from(jpeg.frame.height) / u64::from(divisor * divisor);
    Ok(pixels * BYTES_PER_PIXEL + jpeg.coefficient_bytes())
}

/// Decodes to `1/divisor` of the size (1, 2, 4 or 8; rounded up) or, where that is not possible, to full size.
///
/// # Errors
/// 422 if any part of the image is missing or invalid, 413 if decoding would take more memory than the limit.
pub(in crate::pictures::decode) fn decode(bytes: &[u8], divisor: u32) -> Result<Rgb, Rejection> {
    let jpeg = read_header(bytes)?;
    let scans = jpeg.scans()?;
    let frame = &jpeg.frame;
    let scaled = divisor > 1 && !jpeg.is_rgb() || !suits_zune(&jpeg, &scans);
    let divisor = if scaled { divisor } else { 1 };
    let pixels = u64::from(frame.width) * u64::from(frame.height) / u64::from(divisor * divisor);
    let planes = if scaled { frame.components.len() as u64 } else { 0 };
    check_working_bytes(pixels * (3 + planes) + jpeg.coefficient_bytes())?;
    if !scaled {
        return full(bytes, frame);
    }
    if divisor > 1
        && !frame.is_progressive()
        && let Some(decoded) = reduced_size::decode(&jpeg, &scans, divisor)
    {
        return decoded;
    }
    fraction(bytes, frame, divisor)
}

/// Whether zune-jpeg decodes the file correctly. Version 0.5 silently produces wrong pixels where a sequential file has
/// several scans and unusual sampling factors, and loses samples where the first component has not the highest
/// resolution.
fn suits_zune(jpeg: &Jpeg<'_>, scans: &[Scan<'_>]) -> bool {
    let components = &jpeg.frame.components;
    let one_pass = scans.len() == 1 || jpeg.frame.is_progressive();
    let [first, others @ ..] = components.as_slice() else { return false };
    let usual = first.h <= 2 && first.v <= 2 && others.iter().all(|other| (other.h, other.v) == (1, 1));
    one_pass && components.len() < 4 && (usual || others.is_empty())
}

/// Decodes grey, YCbCr or RGB at full size, by zune-jpeg.
fn full(bytes: &[u8], frame: &Frame) -> Result<Rgb, Rejection> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(frame.width))
        .set_max_height(usize::from(frame.height))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let pixels = decoder.decode().map_err(corrupt)?;
    Rgb::new(frame.width.into(), frame.height.into(), pixels)
}

/// Decodes at a fraction of the size, by jpeg-decoder: a smaller inverse DCT over the low frequencies of every block.
fn fraction(bytes: &[u8], frame: &Frame, divisor: u32) -> Result<Rgb, Rejection> {
    let side = |full: u16| u32::from(full).div_ceil(divisor) as u16;
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    let (width, height) = decoder.scale(side(frame.width), side(frame.height)).map_err(corrupt)?;
    let (width, height) = (u32::from(width), u32::from(height));
    let pixels = decoder.decode().map_err(corrupt)?;
    match decoder.info().map(|info| info.pixel_format) {
        Some(jpeg_decoder::PixelFormat::RGB24) => Rgb::new(width, height, pixels),
        Some(jpeg_decoder::PixelFormat::L8) => rgb::from_grey(width, height, &pixels),
        Some(jpeg_decoder::PixelFormat::CMYK32) => rgb::from_cmyk(width, height, pixels),
        _ => Err(corrupt("its colours decoded as an unexpected type")),
    }
}
