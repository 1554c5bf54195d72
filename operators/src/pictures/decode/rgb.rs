//! 8-bit RGB pixels: converts from grey, alpha and CMYK, rotates upright by EXIF orientation, averages to a smaller
//! size.

use fast_image_resize::images::{Image as Buffer, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::ImageDecoder;
use pipeline::Rejection;

use super::limits::check_working_bytes;
use super::rejections::corrupt;

/// An image: `height × width × 3` bytes, rows from the top, no padding.
pub(super) struct Rgb {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixels: Vec<u8>,
}

impl Rgb {
    /// # Errors
    /// 422 if there are not exactly `width × height` pixels.
    pub(super) fn new(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self, Rejection> {
        if pixels.len() as u64 != u64::from(width) * u64::from(height) * 3 {
            return Err(corrupt(format!("{width} × {height} pixels decoded to {} bytes", pixels.len())));
        }
        Ok(Self { width, height, pixels })
    }
}

/// One byte of grey each becomes three.
pub(super) fn from_grey(width: u32, height: u32, grey: &[u8]) -> Result<Rgb, Rejection> {
    Rgb::new(width, height, grey.iter().flat_map(|&level| [level; 3]).collect())
}

/// Grey and alpha, blended onto white.
pub(super) fn from_grey_alpha(width: u32, height: u32, pairs: &[u8]) -> Result<Rgb, Rejection> {
    let pixels = pairs.chunks_exact(2).flat_map(|pair| [on_white(pair[0], pair[1]); 3]).collect();
    Rgb::new(width, height, pixels)
}

/// RGB and alpha, blended onto white in place: the result is shorter, so no second buffer is needed.
pub(super) fn from_rgba(width: u32, height: u32, mut bytes: Vec<u8>) -> Result<Rgb, Rejection> {
    let pixels = bytes.len() / 4;
    for i in 0..pixels {
        let alpha = bytes[4 * i + 3];
        for channel in 0..3 {
            bytes[3 * i + channel] = on_white(bytes[4 * i + channel], alpha);
        }
    }
    bytes.truncate(pixels * 3);
    bytes.shrink_to_fit();
    Rgb::new(width, height, bytes)
}

/// CMYK inks (255 is full coverage) on white paper, in place.
pub(super) fn from_cmyk(width: u32, height: u32, mut bytes: Vec<u8>) -> Result<Rgb, Rejection> {
    let pixels = bytes.len() / 4;
    for i in 0..pixels {
        let light = 255 - u32::from(bytes[4 * i + 3]);
        for ink in 0..3 {
            bytes[3 * i + ink] = (((255 - u32::from(bytes[4 * i + ink])) * light + 127) / 255) as u8;
        }
    }
    bytes.truncate(pixels * 3);
    bytes.shrink_to_fit();
    Rgb::new(width, height, bytes)
}

/// Reads all pixels of a decoder of the `image` crate.
pub(super) fn read(decoder: impl ImageDecoder) -> Result<Rgb, Rejection> {
    let (width, height) = decoder.dimensions();
    // A lossless WebP is decoded to four bytes per pixel, whatever the output type is.
    check_working_bytes(u64::from(width) * u64::from(height) * 4)?;
    let colour = decoder.color_type();
    let size = usize::try_from(decoder.total_bytes()).map_err(corrupt)?;
    let mut pixels = vec![0; size];
    decoder.read_image(&mut pixels).map_err(corrupt)?;
    match colour {
        image::ColorType::Rgb8 => Rgb::new(width, height, pixels),
        image::ColorType::Rgba8 => from_rgba(width, height, pixels),
        other => Err(corrupt(format!("its colours decoded as {other:?}"))),
    }
}

fn on_white(level: u8, alpha: u8) -> u8 {
    let (level, alpha) = (u32::from(level), u32::from(alpha));
    ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// The largest of 8, 4, 2 and 1 by which both sides can be divided without going below `min_size`.
pub(super) fn divisor(width: u32, height: u32, min_size: Option<(u32, u32)>) -> u32 {
    let Some((min_width, min_height)) = min_size else { return 1 };
    let fits = |divisor: &u32| width.div_ceil(*divisor) >= min_width && height.div_ceil(*divisor) >= min_height;
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// Averages blocks of `divisor` × `divisor` pixels.
pub(super) fn shrink(image: Rgb, divisor: u32) -> Result<Rgb, Rejection> {
    if divisor == 1 {
        return Ok(image);
    }
    let (width, height) = (image.width.div_ceil(divisor), image.height.div_ceil(divisor));
    let source = ImageRef::new(image.width, image.height, &image.pixels, PixelType::U8x3).map_err(corrupt)?;
    let mut target = Buffer::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Box));
    Resizer::new().resize(&source, &mut target, &options).map_err(corrupt)?;
    Rgb::new(width, height, target.into_vec())
}

/// Whether an EXIF orientation swaps rows and columns.
pub(super) fn swaps_sides(orientation: u8) -> bool {
    orientation >= 5
}

/// Rotates and mirrors an image upright (EXIF 2.32, tag 274: which side of the scene row 0 and column 0 of the file
/// show).
pub(super) fn upright(image: Rgb, orientation: u8) -> Rgb {
    /// Side of a tile in pixels. A tile is read along columns, so its rows must stay in the CPU cache.
    const TILE: usize = 32;
    if orientation <= 1 {
        return image;
    }
    let (stored_width, stored_height) = (image.width as usize, image.height as usize);
    let swapped = swaps_sides(orientation);
    let (width, height) = if swapped { (stored_height, stored_width) } else { (stored_width, stored_height) };
    // Orientations whose stored rows or columns run against those of the upright image.
    let (from_right, from_bottom) = match orientation {
        2 => (true, false),
        3 => (true, true),
        4 => (false, true),
        6 => (false, true),
        7 => (true, true),
        8 => (true, false),
        _ => (false, false),
    };
    let mut pixels = vec![0; image.pixels.len()];
    for tile_y in (0..height).step_by(TILE) {
        for tile_x in (0..width).step_by(TILE) {
            for y in tile_y..height.min(tile_y + TILE) {
                for x in tile_x..width.min(tile_x + TILE) {
                    let (column, row) = if swapped { (y, x) } else { (x, y) };
                    let column = if from_right { stored_width - 1 - column } else { column };
                    let row = if from_bottom { stored_height - 1 - row } else { row };
                    let (to, from) = ((y * width + x) * 3, (row * stored_width + column) * 3);
                    pixels[to..to + 3].copy_from_slice(&image.pixels[from..from + 3]);
                }
            }
        }
    }
    Rgb { width: width as u32, height: height as u32, pixels }
}
