//! Draws test images and encodes them in every file type that the tests need, valid and damaged.

use std::io::Cursor;

use image::codecs::gif::GifEncoder;
use image::codecs::webp::WebPEncoder;
use image::{Delay, ExtendedColorType, Frame, RgbImage, RgbaImage, imageops};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// An image of smooth shading with a bright corner, so that no two orientations of it look alike.
pub(super) fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (fx, fy) = (x as f32 / width as f32, y as f32 / height as f32);
        let corner = if fx < 0.3 && fy < 0.2 { 120.0 } else { 0.0 };
        let wave = (fx * 9.0).sin() * 30.0;
        image::Rgb([
            (40.0 + 90.0 * fx + corner) as u8,
            (60.0 + 100.0 * fy + wave) as u8,
            (200.0 - 120.0 * fx * fy) as u8,
        ])
    })
}

/// How a JPEG is encoded.
#[derive(Clone, Copy)]
pub(super) struct Writing {
    pub(super) sampling: SamplingFactor,
    pub(super) progressive: bool,
    /// MCUs between restarts; 0 for none.
    pub(super) restart: u16,
}

pub(super) const PLAIN: Writing = Writing { sampling: SamplingFactor::F_2_2, progressive: false, restart: 0 };

pub(super) fn jpeg(picture: &RgbImage, writing: Writing) -> Vec<u8> {
    jpeg_of(picture.as_raw(), picture.width(), picture.height(), ColorType::Rgb, writing)
}

pub(super) fn jpeg_of(pixels: &[u8], width: u32, height: u32, colours: ColorType, writing: Writing) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 95);
    encoder.set_sampling_factor(writing.sampling);
    encoder.set_progressive(writing.progressive);
    if writing.restart > 0 {
        encoder.set_restart_interval(writing.restart);
    }
    encoder.encode(pixels, width as u16, height as u16, colours).unwrap();
    bytes
}

/// A TIFF structure that contains only an orientation.
pub(super) fn tiff(orientation: u8) -> Vec<u8> {
    let mut tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    tiff.extend([orientation, 0, 0, 0, 0, 0, 0]);
    tiff
}

/// `jpeg` with a segment after its first marker.
pub(super) fn with_segment(jpeg: &[u8], marker: u8, contents: &[u8]) -> Vec<u8> {
    let length = (contents.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, marker], &length, contents, &jpeg[2..]].concat()
}

/// `jpeg` with an EXIF segment.
pub(super) fn with_exif(jpeg: &[u8], tiff: &[u8]) -> Vec<u8> {
    with_segment(jpeg, 0xe1, &[b"Exif\0\0", tiff].concat())
}

/// `picture` as stored by a camera held in that orientation.
pub(super) fn stored(picture: &RgbImage, orientation: u8) -> RgbImage {
    match orientation {
        2 => imageops::flip_horizontal(picture),
        3 => imageops::rotate180(picture),
        4 => imageops::flip_vertical(picture),
        5 => imageops::flip_horizontal(&imageops::rotate90(picture)),
        6 => imageops::rotate270(picture),
        7 => imageops::flip_horizontal(&imageops::rotate270(picture)),
        8 => imageops::rotate90(picture),
        _ => picture.clone(),
    }
}

/// A PNG of raw rows in any colour type and depth; `palette` has RGB triples, `alpha` their transparency.
pub(super) fn png(
    sides: (u32, u32),
    colours: (png::ColorType, png::BitDepth),
    data: &[u8],
    palette: Option<(Vec<u8>, Vec<u8>)>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, sides.0, sides.1);
    encoder.set_color(colours.0);
    encoder.set_depth(colours.1);
    encoder.set_compression(png::Compression::Fast);
    if let Some((colours, alpha)) = palette {
        encoder.set_palette(colours);
        encoder.set_trns(alpha);
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    bytes
}

pub(super) fn rgb_png(picture: &RgbImage) -> Vec<u8> {
    png(picture.dimensions(), (png::ColorType::Rgb, png::BitDepth::Eight), picture.as_raw(), None)
}

/// A PNG chunk with its checksum.
pub(super) fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [kind, data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
}

/// CRC-32 as in PNG (ISO 3309), bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// `png` with chunks before its last one.
pub(super) fn before_end(png: &[u8], chunks: &[u8]) -> Vec<u8> {
    let end = png.len() - 12;
    [&png[..end], chunks, &png[end..]].concat()
}

/// `png` with chunks after its first one.
pub(super) fn behind_header(png: &[u8], chunks: &[u8]) -> Vec<u8> {
    [&png[..33], chunks, &png[33..]].concat()
}

/// A PNG that has only a header of 8-bit RGB.
pub(super) fn png_header(width: u32, height: u32) -> Vec<u8> {
    let fields = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &fields), chunk(b"IEND", &[])].concat()
}

pub(super) fn webp(pixels: &[u8], width: u32, height: u32, colours: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    WebPEncoder::new_lossless(&mut bytes).encode(pixels, width, height, colours).unwrap();
    bytes
}

fn riff_chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let padding = vec![0; data.len() % 2];
    [&kind[..], &(data.len() as u32).to_le_bytes(), data, &padding].concat()
}

fn u24(value: u32) -> [u8; 3] {
    let bytes = value.to_le_bytes();
    [bytes[0], bytes[1], bytes[2]]
}

/// An extended WebP: a canvas, flags, and chunks.
pub(super) fn extended_webp(flags: u8, canvas: (u32, u32), chunks: &[u8]) -> Vec<u8> {
    let header = [&[flags, 0, 0, 0][..], &u24(canvas.0 - 1), &u24(canvas.1 - 1)].concat();
    let body = [b"WEBP".to_vec(), riff_chunk(b"VP8X", &header), chunks.to_vec()].concat();
    riff_chunk(b"RIFF", &body)
}

/// The VP8L chunk of an image.
pub(super) fn lossless_chunk(picture: &RgbImage) -> Vec<u8> {
    webp(picture.as_raw(), picture.width(), picture.height(), ExtendedColorType::Rgb8)[12..].to_vec()
}

/// A WebP with EXIF after its image data.
pub(super) fn webp_with_exif(picture: &RgbImage, tiff: &[u8]) -> Vec<u8> {
    let chunks = [lossless_chunk(picture), riff_chunk(b"EXIF", tiff)].concat();
    extended_webp(0b1000, picture.dimensions(), &chunks)
}

/// An animated WebP that repeats one image `frames` times.
pub(super) fn animated_webp(picture: &RgbImage, frames: usize) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    let head = [&u24(0)[..], &u24(0), &u24(width - 1), &u24(height - 1), &u24(100), &[0]].concat();
    let frame = riff_chunk(b"ANMF", &[head, lossless_chunk(picture)].concat());
    let chunks = [riff_chunk(b"ANIM", &[255, 255, 255, 255, 0, 0]), frame.repeat(frames)].concat();
    extended_webp(0b10, (width, height), &chunks)
}

/// A lossy WebP of one pixel.
pub(super) const LOSSY_WEBP: [u8; 42] = [
    0x52, 0x49, 0x46, 0x46, 0x22, 0x00, 0x00, 0x00, 0x57, 0x45, 0x42, 0x50, 0x56, 0x50, 0x38, 0x20, 0x16, 0x00, 0x00,
    0x00, 0x30, 0x01, 0x00, 0x9d, 0x01, 0x2a, 0x01, 0x00, 0x01, 0x00, 0x0e, 0xc0, 0xfe, 0x25, 0xa4, 0x00, 0x03, 0x70,
    0x00, 0x00, 0x00, 0x00,
];

/// A GIF of 256 colours that repeats one image `frames` times.
pub(super) fn gif(picture: &RgbImage, frames: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(Cursor::new(&mut bytes), 10);
    let rgba: RgbaImage = image::DynamicImage::from(picture.clone()).to_rgba8();
    for _ in 0..frames {
        let delay = Delay::from_numer_denom_ms(100, 1);
        encoder.encode_frame(Frame::from_parts(rgba.clone(), 0, 0, delay)).unwrap();
    }
    drop(encoder);
    bytes
}
