//! Benchmarks image decoding on one thread, per size, subsampling and divisor. Draws its own images; files given as
//! arguments are measured too: `cargo bench -p operators --bench decode -- photo.jpg`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use operators::pictures::decode::{Format, Limits, decode, probe};
use pipeline::spec::ByteSize;
use tokio::time::Instant;

const ROUNDS: usize = 15;

/// Twice the size that a model resizes to, here 224.
const SMALL: Option<(u32, u32)> = Some((448, 448));

fn main() {
    let files: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    println!("{:<44} {:>10} {:>12} {:>12}", "image", "bytes", "full, ms", "small, ms");
    for file in &files {
        let bytes = std::fs::read(file).expect("the file named as an argument can be read");
        measure(file, &bytes);
    }
    for (name, width, height) in [("12 MP", 4000, 3000), ("1 MP", 1152, 864)] {
        let pixels = photo_like(width, height);
        for (kind, sampling, progressive) in [
            ("4:2:0", SamplingFactor::F_2_2, false),
            ("4:4:4", SamplingFactor::F_1_1, false),
            ("4:2:0 progressive", SamplingFactor::F_2_2, true),
        ] {
            measure(&format!("{name} {kind}"), &encode(&pixels, width, height, sampling, progressive));
        }
    }
}

fn measure(name: &str, bytes: &[u8]) {
    let header = probe(bytes).expect("the file is an image");
    let limits = Limits { bytes: ByteSize::mib(64), side: 16_384, megapixels: 50, formats: Format::ALL.to_vec() };
    let time = |min_size| {
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            std::hint::black_box(decode(bytes, &limits, min_size).expect("the image decodes"));
            best = best.min(begun.elapsed().as_secs_f64() * 1e3);
        }
        best
    };
    let name = format!("{name} ({} × {})", header.width, header.height);
    println!("{name:<44} {:>10} {:>12.2} {:>12.2}", bytes.len(), time(None), time(SMALL));
}

fn encode(pixels: &[u8], width: u16, height: u16, sampling: SamplingFactor, progressive: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 90);
    encoder.set_sampling_factor(sampling);
    encoder.set_progressive(progressive);
    encoder.encode(pixels, width, height, ColorType::Rgb).expect("the sides fit a JPEG");
    bytes
}

/// Smooth shading, edges at several scales and sensor noise: about as many bits per pixel as a photo from a phone.
fn photo_like(width: u16, height: u16) -> Vec<u8> {
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    let mut pixels = Vec::with_capacity(usize::from(width) * usize::from(height) * 3);
    for y in 0..height {
        for x in 0..width {
            let (fx, fy) = (f32::from(x) / f32::from(width), f32::from(y) / f32::from(height));
            let shade = (fx * 7.0).sin() * (fy * 5.0).cos() * 60.0;
            let edges = if (fx * 23.0 + (fy * 17.0).sin() * 2.0).fract() < 0.5 { 25.0 } else { -25.0 };
            let texture = (fx * 900.0 + fy * 300.0).sin() * (fy * 700.0).sin() * 12.0;
            for channel in 0..3 {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                let grain = (noise >> 40 & 0xff) as f32 / 255.0 * 24.0 - 12.0;
                let tint = [20.0, 0.0, -30.0][channel] * (fx - fy);
                pixels.push((128.0 + shade + edges + texture + tint + grain) as u8);
            }
        }
    }
    pixels
}
