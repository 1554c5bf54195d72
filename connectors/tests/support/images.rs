//! Test images drawn by code, each with another subject, and the usual alterations.

use std::io::Cursor;
use std::sync::Arc;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, Rgb, RgbImage};
use pipeline::{Digest, Image};

use super::Noise;

const WIDTH: u32 = 360;
const HEIGHT: u32 = 280;

/// Ten images: landscapes, objects, patterns and textures, in color and in grey.
pub fn gallery() -> Vec<(&'static str, RgbImage)> {
    vec![
        ("sunset", paint(|x, y| [lerp(250.0, 60.0, y), lerp(140.0, 40.0, y), lerp(60.0, 120.0, y + x * 0.2)])),
        ("meadow", meadow()),
        ("ball", disc([0.35, 0.45, 0.22], [210.0, 40.0, 40.0], [225.0; 3])),
        ("moon", disc([0.7, 0.3, 0.15], [235.0, 235.0, 210.0], [15.0, 15.0, 40.0])),
        ("bricks", bricks()),
        ("stripes", paint(|x, y| [if (((x + y) * 14.0) as u32).is_multiple_of(2) { 230.0 } else { 30.0 }; 3])),
        ("grain", texture(7, 1, [120.0; 3], 110.0)),
        ("clouds", texture(11, 24, [150.0, 170.0, 215.0], 160.0)),
        ("marble", texture(23, 12, [190.0, 185.0, 170.0], 120.0)),
        ("face", face()),
    ]
}

/// As the pipeline carries it.
pub fn decoded(source: &RgbImage) -> Arc<Image> {
    let (width, height) = source.dimensions();
    Arc::new(Image { width, height, pixels: source.as_raw().clone(), sha256: Digest([0; 32]), room: None })
}

/// Half the width and height.
pub fn halved(source: &RgbImage) -> RgbImage {
    image::imageops::resize(source, source.width() / 2, source.height() / 2, FilterType::CatmullRom)
}

/// Compressed as JPEG of this quality and decoded.
pub fn recompressed(source: &RgbImage, quality: u8) -> RgbImage {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(source).unwrap();
    let decoded = image::load(Cursor::new(bytes), image::ImageFormat::Jpeg).unwrap();
    DynamicImage::into_rgb8(decoded)
}

/// Without a twentieth of the width and height, cut off at the left and top.
pub fn cropped(source: &RgbImage) -> RgbImage {
    let (width, height) = source.dimensions();
    image::imageops::crop_imm(source, width / 20, height / 20, width * 19 / 20, height * 19 / 20).to_image()
}

fn paint(color: impl Fn(f32, f32) -> [f32; 3]) -> RgbImage {
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let color = color(x as f32 / WIDTH as f32, y as f32 / HEIGHT as f32);
        Rgb(color.map(|value| value.clamp(0.0, 255.0) as u8))
    })
}

fn lerp(from: f32, to: f32, at: f32) -> f32 {
    from + (to - from) * at
}

fn meadow() -> RgbImage {
    paint(|x, y| {
        let hill = 0.55 + 0.08 * (x * 9.0).sin();
        if y < hill { [130.0, 180.0, 240.0] } else { [60.0 + 40.0 * (x * 60.0).sin().abs(), 140.0, 50.0] }
    })
}

fn disc([x0, y0, radius]: [f32; 3], inside: [f32; 3], outside: [f32; 3]) -> RgbImage {
    paint(|x, y| if (x - x0).hypot(y - y0) < radius { inside } else { outside })
}

fn bricks() -> RgbImage {
    paint(|x, y| {
        let row = (y * 12.0) as u32;
        let shift = if row.is_multiple_of(2) { 0.0 } else { 0.5 };
        let mortar = (y * 12.0).fract() < 0.15 || (x * 6.0 + shift).fract() < 0.07;
        if mortar { [190.0, 185.0, 180.0] } else { [150.0 + 30.0 * ((row * 7) as f32).sin(), 70.0, 55.0] }
    })
}

/// Random values on a grid of `cell` pixels, smoothly joined.
fn texture(seed: u64, cell: u32, base: [f32; 3], contrast: f32) -> RgbImage {
    let mut noise = Noise::new(seed);
    let (columns, rows) = (WIDTH / cell + 1, HEIGHT / cell + 1);
    let grid = RgbImage::from_fn(columns, rows, |_, _| {
        let value = (noise.next() - 0.5) * contrast;
        Rgb(base.map(|color| (color + value).clamp(0.0, 255.0) as u8))
    });
    image::imageops::resize(&grid, WIDTH, HEIGHT, FilterType::CatmullRom)
}

fn face() -> RgbImage {
    paint(|x, y| {
        let eye = (x - 0.38).hypot(y - 0.4) < 0.05 || (x - 0.62).hypot(y - 0.4) < 0.05;
        let mouth = (y - 0.65 - 0.1 * (x - 0.5).powi(2)).abs() < 0.02 && (x - 0.5).abs() < 0.15;
        if eye || mouth {
            [30.0, 25.0, 25.0]
        } else if ((x - 0.5) / 0.3).hypot((y - 0.5) / 0.42) < 1.0 {
            [225.0, 180.0, 150.0]
        } else {
            [90.0, 110.0, 90.0]
        }
    })
}
