//! JPEG (ITU-T T.81). [`decoder`] selects one of three decoders; [`reduced_size`] is our own, for smaller sizes.

mod decoder;
mod entropy_decoder;
mod markers;
mod reduced_size;

pub(super) use decoder::{decode, probe, working_bytes};
