//! `use = "decode"`: decodes the bytes of an image file on the compute pool, one image per worker at a time.
//!
//! A decoder that panics affects only its own event.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::spec::ByteSize;
use pipeline::{
    Body, BoxError, Compute, Content, DeclaredNames, Emits, Event, Fault, Image, ImageModel, KeyProblem, Lane, Need,
    Operator, OperatorKind, OperatorSpec, Output, Payload, PayloadKind, PixelBudget, Rejection, Services, StageTypes,
    take_kind,
};
use serde::Deserialize;

use super::decoder::{decode, working_bytes};
use super::format::Format;
use super::limits::Limits;
use super::rejections::corrupt;

/// `use = "decode"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<DecodeSpec>("decode", "decodes a JPEG, PNG, WebP or GIF to upright RGB pixels, within limits");

/// A model's input is resized with a filter that reaches two source pixels, so an image of twice that size loses no
/// detail that the model could see.
const PIXELS_PER_MODEL_PIXEL: u32 = 2;

/// The keys of a `decode` stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeSpec {
    /// Largest image, in millions of pixels. The default is what current phones produce; decoded at full size it is 150
    /// MB.
    #[serde(default = "default_max_megapixels")]
    max_megapixels: NonZeroU32,
    /// Longest side, in pixels. The default exceeds every camera and panorama, and bounds a row of pixels to 64 KiB.
    #[serde(default = "default_max_side")]
    max_side: NonZeroU32,
    /// Largest file, for example `"20 MiB"`. The default is a 50-megapixel JPEG of high quality.
    #[serde(default = "default_max_bytes")]
    max_bytes: ByteSize,
    /// Accepted formats: any of `jpeg`, `png`, `webp`, `gif`; by default all.
    #[serde(default = "default_formats")]
    formats: Vec<Format>,
    /// A `[model.NAME]`: images are decoded no larger than it needs, but at least at twice the size it resizes to.
    /// Without it images are decoded at full size.
    model: Option<String>,
}

fn default_max_megapixels() -> NonZeroU32 {
    NonZeroU32::new(50).expect("50 is not zero")
}

fn default_max_side() -> NonZeroU32 {
    NonZeroU32::new(16_384).expect("16384 is not zero")
}

fn default_max_bytes() -> ByteSize {
    ByteSize::mib(20)
}

fn default_formats() -> Vec<Format> {
    Format::ALL.to_vec()
}

impl DecodeSpec {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            bytes: self.max_bytes,
            side: self.max_side.get(),
            megapixels: self.max_megapixels.get(),
            formats: self.formats.clone(),
        }
    }
}

impl OperatorSpec for DecodeSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Kind(PayloadKind::Image) }
    }

    fn needs(&self) -> Vec<Need> {
        self.model.iter().map(|model| Need::named::<dyn ImageModel>("model", model)).collect()
    }

    fn check(&self, _: &DeclaredNames) -> Vec<KeyProblem> {
        let mut key_problems = Vec::new();
        if self.formats.is_empty() {
            let remedy = "remove the key to accept every format".into();
            key_problems.push(KeyProblem { key: "formats", message: "no format is accepted".into(), remedy });
        }
        key_problems
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let min_size = match &self.model {
            None => None,
            Some(name) => {
                let model = services.get_named::<dyn ImageModel>(name)?;
                let (width, height) = model.card().resize_to;
                let twice = |side: u32| side.saturating_mul(PIXELS_PER_MODEL_PIXEL);
                Some((twice(width), twice(height)))
            }
        };
        let compute = services.compute()?;
        let pixels = services.process.pixels.clone();
        Ok(Box::new(Decode { limits: Arc::new(self.limits()), min_size, compute, pixels }))
    }
}

/// Holds only its limits; keeps no state between images.
struct Decode {
    limits: Arc<Limits>,
    min_size: Option<(u32, u32)>,
    compute: Compute,
    pixels: PixelBudget,
}

#[async_trait]
impl Operator for Decode {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        // One at a time: each worker decodes one image.
        for (event, content) in take_kind(batch, out, content_of) {
            let Body::Inline(bytes) = content.body else {
                return Err(Fault::fatal("decode received a claim instead of bytes"));
            };
            match self.decode(event.envelope.lane, bytes).await? {
                Ok(image) => out.emit(&event, Payload::Image(Arc::new(image))).await?,
                Err(why) => out.reject(&event, why),
            }
        }
        Ok(())
    }
}

impl Decode {
    /// Reserves memory from the pixel budget, then decodes; the image keeps its share of the reservation.
    async fn decode(&self, lane: Lane, bytes: Bytes) -> Result<Result<Image, Rejection>, Fault> {
        let needed = match working_bytes(&bytes, &self.limits, self.min_size) {
            Ok(needed) => needed,
            Err(why) => return Ok(Err(why)),
        };
        let mut room = match self.pixels.reserve(lane, needed).await {
            Ok(room) => room,
            Err(why) => return Ok(Err(why)),
        };
        let (limits, min_size) = (Arc::clone(&self.limits), self.min_size);
        let work = move || {
            let decoded = catch_panic(|| decode(&bytes, &limits, min_size));
            decoded.map(|mut image| {
                room.shrink_to(image.pixels.len());
                image.room = Some(room);
                image
            })
        };
        self.compute.run(lane, work).await.map_err(Fault::retry)
    }
}

fn content_of(payload: &Payload) -> Option<Content> {
    match payload {
        Payload::Bytes(content) => Some(content.clone()),
        _ => None,
    }
}

/// Runs a decoder; a panic rejects the file as corrupt.
pub(super) fn catch_panic(decoder: impl FnOnce() -> Result<Image, Rejection>) -> Result<Image, Rejection> {
    catch_unwind(AssertUnwindSafe(decoder)).unwrap_or_else(|_| {
        tracing::warn!("image decoder panicked; image rejected as corrupt");
        Err(corrupt("its decoder failed"))
    })
}
