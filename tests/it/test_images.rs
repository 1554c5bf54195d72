//! Generated test images: ten scenes that differ as photos do, and copies as people share them.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

/// Number of distinct scenes.
pub const SCENES: u32 = 10;

/// A deterministic random number generator (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// A soft round shape of a scene; lengths are shares of the image's side.
struct Blob {
    center: (f32, f32),
    radius: f32,
    color: [f32; 3],
}

/// Draws scene `number`: a sky, a ground and a few soft shapes, with film grain.
pub fn scene(number: u32, width: u32, height: u32) -> RgbImage {
    let mut numbers = Numbers(u64::from(number) * 7919 + 1);
    let mut color = || [numbers.unit() * 255.0, numbers.unit() * 255.0, numbers.unit() * 255.0];
    let (sky, ground) = (color(), color());
    let mut numbers = Numbers(u64::from(number) * 104_729 + 3);
    let horizon = 0.3 + 0.4 * numbers.unit();
    let blobs: Vec<Blob> = (0..6)
        .map(|_| Blob {
            center: (numbers.unit(), numbers.unit()),
            radius: 0.05 + 0.2 * numbers.unit(),
            color: [numbers.unit() * 255.0, numbers.unit() * 255.0, numbers.unit() * 255.0],
        })
        .collect();
    let stripes = 4.0 + 40.0 * numbers.unit();
    let mut grain = Numbers(u64::from(number));
    RgbImage::from_fn(width, height, |px, py| {
        let (x, y) = (px as f32 / width as f32, py as f32 / height as f32);
        let mut value =
            if y < horizon { sky.map(|v| v * (1.0 - 0.4 * y)) } else { ground.map(|v| v * (0.6 + 0.4 * y)) };
        if y > horizon {
            let wave = (x * stripes).sin() * 18.0;
            value = value.map(|v| v + wave);
        }
        for blob in &blobs {
            let distance = ((x - blob.center.0).powi(2) + (y - blob.center.1).powi(2)).sqrt();
            let weight = ((blob.radius - distance) / blob.radius * 4.0).clamp(0.0, 1.0);
            value = std::array::from_fn(|c| value[c] * (1.0 - weight) + blob.color[c] * weight);
        }
        let noise = (grain.unit() - 0.5) * 16.0;
        Rgb(value.map(|v| (v + noise).clamp(0.0, 255.0) as u8))
    })
}

/// Encodes an image as JPEG.
pub fn jpeg(image: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(image).unwrap();
    bytes
}

/// Encodes an image as PNG.
pub fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A copy as a messenger makes it: cropped by a twentieth on each side, half the size, compressed again.
pub fn copy(image: &RgbImage) -> Vec<u8> {
    let (width, height) = image.dimensions();
    let (dx, dy) = (width / 20, height / 20);
    let cropped = DynamicImage::from(image.clone()).crop_imm(dx, dy, width - 2 * dx, height - 2 * dy);
    let smaller = cropped.resize_exact(width / 2, height / 2, FilterType::Triangle);
    jpeg(&smaller.into_rgb8(), 60)
}
