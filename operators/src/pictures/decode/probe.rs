//! Probes an image: what a file is and how large, from its first bytes and chunk headers, without decoding a pixel.

use pipeline::Rejection;

use super::format::Format;
use super::header::Header;
use super::{gif, jpeg, png, webp};

/// Reads the header of an image. Takes time in proportion to the number of chunks, and no memory.
///
/// # Errors
/// 422 for an empty file or a broken header, 415 for a file in none of the four formats.
pub fn probe(bytes: &[u8]) -> Result<Header, Rejection> {
    match Format::detect(bytes)? {
        Format::Jpeg => jpeg::probe(bytes),
        Format::Png => png::probe(bytes),
        Format::Webp => webp::probe(bytes),
        Format::Gif => gif::probe(bytes),
    }
}
