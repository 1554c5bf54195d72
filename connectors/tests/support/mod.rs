//! Helpers that the tests of this crate share. Nothing here needs the network, or a file other than the ONNX Runtime
//! library.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod images;
pub mod onnx;
pub mod qdrant_double;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeline::{Digest, Image};

/// The ONNX Runtime library: `ORT_DYLIB_PATH`, or where `make setup` installs it.
pub fn runtime_path() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.caudal/lib/libonnxruntime.so");
    std::env::var_os("ORT_DYLIB_PATH").map_or(installed, PathBuf::from)
}

/// An image of one color.
pub fn flat(width: u32, height: u32, color: [u8; 3]) -> Arc<Image> {
    let pixels = color.repeat(width as usize * height as usize);
    Arc::new(Image { width, height, pixels, sha256: Digest([0; 32]), room: None })
}

/// Cosine of two unit vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A reproducible sequence of pseudo-random numbers (Marsaglia, "Xorshift RNGs", 2003).
pub struct Noise(u64);

impl Noise {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// In `[0, 1)`.
    pub fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    /// A vector of unit length.
    pub fn unit(&mut self, dim: usize) -> Vec<f32> {
        let raw: Vec<f32> = (0..dim).map(|_| self.next() - 0.5).collect();
        let length = raw.iter().map(|value| value * value).sum::<f32>().sqrt();
        raw.into_iter().map(|value| value / length).collect()
    }
}
