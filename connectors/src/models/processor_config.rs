//! Reads `preprocessor_config.json`, the description of a model's preprocessing in Hugging Face repositories.
//!
//! Every processor class has its own defaults for absent keys, and several keys changed their form over the years. A
//! form that is not known for certain is an error: a guess would silently give worse vectors.

use serde::Deserialize;

use super::preprocess::{Filter, Preprocessing, Resize};

const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
const HALF: [f32; 3] = [0.5; 3];

/// Why a preprocessing cannot be reproduced.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// The file is missing or unreadable.
    #[error("the file cannot be read: a model directory needs its preprocessor_config.json")]
    Unreadable(#[source] std::io::Error),
    /// The file is not JSON, or a key has an unexpected form.
    #[error("the file is not a processor configuration")]
    Malformed(#[source] serde_json::Error),
    /// Neither `image_processor_type` nor `feature_extractor_type` is set.
    #[error("image_processor_type is missing: add the one of the model's authors")]
    Untyped,
    /// A class that this reader does not know.
    #[error("the image processor {0:?} is not supported; supported are {SUPPORTED}")]
    UnknownType(String),
    /// A class, or a combination of keys, that cannot be reproduced.
    #[error("{0}")]
    Unsupported(String),
}

const SUPPORTED: &str = "CLIP, Siglip, Bit, ViT, DeiT, ConvNext, EfficientNet, MobileNetV1, MobileNetV2, MobileViT and DINOv3ViT \
                     image processors and ImageFeatureExtractor";

#[derive(Deserialize)]
struct Raw {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<RawSize>,
    resample: Option<u8>,
    do_center_crop: Option<bool>,
    crop_size: Option<RawSize>,
    crop_pct: Option<f64>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    rescale_offset: Option<bool>,
    do_normalize: Option<bool>,
    // The first SigLIP conversions wrote these two without the prefix.
    #[serde(alias = "mean")]
    image_mean: Option<[f32; 3]>,
    #[serde(alias = "std")]
    image_std: Option<[f32; 3]>,
    include_top: Option<bool>,
    do_flip_channel_order: Option<bool>,
    do_pad: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum RawSize {
    Side(u32),
    Sides { height: u32, width: u32 },
    Shortest { shortest_edge: u32 },
}

/// The defaults of a processor class.
struct Defaults {
    size: Resize,
    /// Whether a plain number as `size` means both sides, not the shortest edge.
    number_is_exact: bool,
    filter: Filter,
    crop: Option<u32>,
    normalize: bool,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Defaults {
    const fn shortest(side: u32, filter: Filter, crop: u32, mean: [f32; 3], std: [f32; 3]) -> Self {
        let size = Resize::Shortest(side);
        Self { size, number_is_exact: false, filter, crop: Some(crop), normalize: true, mean, std }
    }

    const fn exact(side: u32, filter: Filter, crop: Option<u32>, mean: [f32; 3], std: [f32; 3]) -> Self {
        let size = Resize::Exact { width: side, height: side };
        Self { size, number_is_exact: true, filter, crop, normalize: true, mean, std }
    }

    /// By family name, see [`family_of`].
    fn of(family: &str) -> Option<Self> {
        Some(match family {
            "CLIP" => Self::shortest(224, Filter::Bicubic, 224, CLIP_MEAN, CLIP_STD),
            "Bit" => Self::shortest(224, Filter::Bicubic, 224, CLIP_MEAN, CLIP_STD),
            "MobileNetV1" | "MobileNetV2" => Self::shortest(256, Filter::Bilinear, 224, HALF, HALF),
            "MobileViT" => {
                let shortest = Self::shortest(224, Filter::Bilinear, 256, [0.0; 3], [1.0; 3]);
                Self { normalize: false, ..shortest }
            }
            "Siglip" => Self::exact(224, Filter::Bicubic, None, HALF, HALF),
            "ViT" => Self::exact(224, Filter::Bilinear, None, HALF, HALF),
            "DeiT" => Self::exact(256, Filter::Bicubic, Some(224), HALF, HALF),
            "DINOv3ViT" => Self::exact(224, Filter::Bilinear, None, IMAGENET_MEAN, IMAGENET_STD),
            "EfficientNet" => Self::exact(346, Filter::Nearest, None, HALF, HALF),
            "ConvNext" => Self::exact(384, Filter::Bilinear, None, HALF, HALF),
            // transformers.js writes this for any class; such files set every key.
            "Image" => Self::exact(224, Filter::Bilinear, None, HALF, HALF),
            _ => return None,
        })
    }
}

/// Reads the text of a `preprocessor_config.json`.
///
/// # Errors
/// See [`ProcessorError`].
pub fn parse(text: &str) -> Result<Preprocessing, ProcessorError> {
    let raw: Raw = serde_json::from_str(text).map_err(ProcessorError::Malformed)?;
    let class = raw.image_processor_type.as_deref().or(raw.feature_extractor_type.as_deref());
    let class = class.ok_or(ProcessorError::Untyped)?;
    let family = family_of(class);
    if family == "Siglip2" {
        let why = "Siglip2ImageProcessor (NaFlex) cuts every image into a number of patches of its own; use a fixed-size \
                   SigLIP2 model, for example siglip2-base-patch16-224";
        return Err(ProcessorError::Unsupported(why.into()));
    }
    let defaults = Defaults::of(family).ok_or_else(|| ProcessorError::UnknownType(class.into()))?;
    refuse_unsupported_steps(&raw)?;
    let (resize, crop) = if family == "ConvNext" { convnext(&raw)? } else { geometry(&raw, &defaults)? };
    let filter = match raw.resample {
        None => defaults.filter,
        Some(code) => {
            Filter::from_pillow(code).ok_or_else(|| unsupported(format!("resample {code} is not a filter")))?
        }
    };
    let (mean, std) = normalisation(&raw, &defaults)?;
    let rescale = if raw.do_rescale.unwrap_or(true) { raw.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 };
    let mut preprocessing = Preprocessing::new(resize, filter, crop, rescale, mean, std);
    if family == "EfficientNet" && raw.include_top.unwrap_or(true) {
        // The reference divides by the standard deviation a second time for models that kept their classifier.
        preprocessing.divide_by(std);
    }
    preprocessing.bgr = raw.do_flip_channel_order.unwrap_or(family == "MobileViT");
    Ok(preprocessing)
}

fn unsupported(why: impl Into<String>) -> ProcessorError {
    ProcessorError::Unsupported(why.into())
}

/// `CLIPImageProcessorFast`, `CLIPImageProcessor` and `CLIPFeatureExtractor` are one family, `CLIP`.
fn family_of(class: &str) -> &str {
    let class = class.strip_suffix("Fast").unwrap_or(class);
    let class = class.strip_suffix("ImageProcessor").unwrap_or(class);
    class.strip_suffix("FeatureExtractor").unwrap_or(class)
}

fn refuse_unsupported_steps(raw: &Raw) -> Result<(), ProcessorError> {
    if raw.do_resize == Some(false) {
        return Err(unsupported("do_resize is false: images of different sizes do not fit one tensor"));
    }
    if raw.do_pad == Some(true) {
        return Err(unsupported("do_pad is true: padding is not supported"));
    }
    if raw.rescale_offset == Some(true) {
        return Err(unsupported("rescale_offset is true: rescaling to [-1, 1] is not supported"));
    }
    Ok(())
}

type Geometry = (Resize, Option<(u32, u32)>);

fn geometry(raw: &Raw, defaults: &Defaults) -> Result<Geometry, ProcessorError> {
    let resize = match raw.size {
        None => defaults.size,
        Some(RawSize::Side(side)) if defaults.number_is_exact => Resize::Exact { width: side, height: side },
        Some(RawSize::Side(side)) => Resize::Shortest(side),
        Some(RawSize::Sides { height, width }) => Resize::Exact { width, height },
        Some(RawSize::Shortest { shortest_edge }) => Resize::Shortest(shortest_edge),
    };
    let wanted = raw.do_center_crop.unwrap_or(defaults.crop.is_some());
    let crop = match raw.crop_size {
        _ if !wanted => None,
        Some(RawSize::Side(side)) => Some((side, side)),
        Some(RawSize::Sides { height, width }) => Some((width, height)),
        Some(RawSize::Shortest { shortest_edge }) => Some((shortest_edge, shortest_edge)),
        None => defaults.crop.map(|side| (side, side)),
    };
    check_geometry(resize, crop)?;
    Ok((resize, crop))
}

/// Larger than the input of any published model; a config that asks for more is damaged or hostile.
const LARGEST_SIDE: u32 = 2048;

fn check_geometry(resize: Resize, crop: Option<(u32, u32)>) -> Result<(), ProcessorError> {
    let (width, height) = resize.sides();
    if [width, height].iter().any(|side| *side == 0 || *side > LARGEST_SIDE) {
        return Err(unsupported(format!("size {width}×{height} is not within 1 to {LARGEST_SIDE} pixels a side")));
    }
    match (resize, crop) {
        (Resize::Shortest(side), None) => Err(unsupported(format!(
            "images keep their aspect ratio (shortest_edge {side}) and are not cropped: they would not fit one tensor"
        ))),
        (_, Some((w, h))) if w == 0 || h == 0 || w > width || h > height => {
            Err(unsupported(format!("crop_size {w}×{h} does not fit into the resized {width}×{height}")))
        }
        _ => Ok(()),
    }
}

/// ConvNeXt resizes to `size / crop_pct` and crops to `size` below 384, and resizes exactly from there on.
fn convnext(raw: &Raw) -> Result<Geometry, ProcessorError> {
    /// The class's own default.
    const CROP_PCT: f64 = 224.0 / 256.0;
    let side = match raw.size {
        None => 384,
        Some(RawSize::Side(side) | RawSize::Shortest { shortest_edge: side }) => side,
        Some(RawSize::Sides { .. }) => return Err(unsupported("ConvNext takes `size` as {\"shortest_edge\": N}")),
    };
    let crop_pct = raw.crop_pct.unwrap_or(CROP_PCT);
    if !(0.1..=1.0).contains(&crop_pct) {
        return Err(unsupported(format!("crop_pct {crop_pct} is not within 0.1 to 1")));
    }
    let (resize, crop) = if side < 384 {
        (Resize::Shortest((f64::from(side) / crop_pct) as u32), Some((side, side)))
    } else {
        (Resize::Exact { width: side, height: side }, None)
    };
    check_geometry(resize, crop)?;
    Ok((resize, crop))
}

fn normalisation(raw: &Raw, defaults: &Defaults) -> Result<([f32; 3], [f32; 3]), ProcessorError> {
    if !raw.do_normalize.unwrap_or(defaults.normalize) {
        return Ok(([0.0; 3], [1.0; 3]));
    }
    let mean = raw.image_mean.unwrap_or(defaults.mean);
    let std = raw.image_std.unwrap_or(defaults.std);
    if std.iter().any(|value| !value.is_normal()) || mean.iter().any(|value| !value.is_finite()) {
        return Err(unsupported(format!("image_mean {mean:?} or image_std {std:?} is zero or not finite")));
    }
    Ok((mean, std))
}

#[cfg(test)]
#[path = "processor_config_tests.rs"]
mod tests;
