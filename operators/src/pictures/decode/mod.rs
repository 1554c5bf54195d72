//! Image decoding: a JPEG, PNG, WebP or GIF becomes 8-bit RGB pixels, upright, with transparency blended onto white.
//!
//! The first bytes of a file determine its format; its name and declared type are ignored. The header is checked
//! against the limits before any pixel buffer is allocated. Only the first frame of an animation is decoded.

mod byte_order;
mod decoder;
mod format;
mod gif;
mod header;
mod jpeg;
mod limits;
mod operator;
mod png;
mod probe;
mod rejections;
mod rgb;
#[cfg(test)]
mod test_images;
#[cfg(test)]
mod tests;
mod webp;

pub use decoder::{decode, working_bytes};
pub use format::Format;
pub use header::Header;
pub use limits::Limits;
pub use operator::{DecodeSpec, KIND};
pub use probe::probe;
