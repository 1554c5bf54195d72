//! Images: `decode` turns files into pixels, `embed` makes vectors of them, `index` stores the vectors, `search` finds
//! the nearest ones.

pub mod decode;
pub mod embed;
pub mod index;
pub mod search;
mod vectors;
