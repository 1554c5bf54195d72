//! Image preprocessing: from pixels to the model's input tensor (resize, crop, rescale, normalise, planes).
//!
//! In: 8-bit RGB of any size. Out: f32 `[3, H, W]`, written straight into its slot of a batch `[N, 3, H, W]`. Resizing
//! is an antialiased convolution on 8-bit values, as in Pillow: its filters stretch with the scale and its bicubic has
//! a = -0.5. Only the window that survives the crop is computed. For the few models whose reference resizes floats
//! (DINOv3) the result differs by rounding, at most half a grey level.

use std::cell::RefCell;

use fast_image_resize::images::{Image as Canvas, ImageRef};
use fast_image_resize::{CropBox, FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer, SrcCropping};
use pipeline::{Image, Rejection};
use serde::Serialize;

/// Part of every fingerprint. Increase it when a change gives another tensor for the same file and image.
pub(super) const VERSION: u32 = 1;

/// How an image is brought to the model's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Resize {
    /// The shorter side becomes this, the longer `floor(this × long / short)`.
    Shortest(u32),
    /// Both sides are forced, the aspect ratio is not kept.
    Exact {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
}

impl Resize {
    /// The sides `(width, height)` of a resized square image.
    #[must_use]
    pub fn sides(self) -> (u32, u32) {
        match self {
            Self::Shortest(side) => (side, side),
            Self::Exact { width, height } => (width, height),
        }
    }

    /// The sides of a resized image of `width × height`.
    fn apply(self, width: u32, height: u32) -> (u32, u32) {
        // Two 32-bit factors fit 64 bits; the quotient saturates at the largest side.
        let longer = |side: u32, long: u32, short: u32| {
            u32::try_from(u64::from(side) * u64::from(long) / u64::from(short)).unwrap_or(u32::MAX)
        };
        match self {
            Self::Exact { width, height } => (width, height),
            Self::Shortest(side) if width <= height => (side, longer(side, height, width)),
            Self::Shortest(side) => (longer(side, width, height), side),
        }
    }
}

/// The resampling filter, by Pillow's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "named after Pillow's filters")]
pub enum Filter {
    Nearest,
    Lanczos,
    Bilinear,
    Bicubic,
    Box,
    Hamming,
}

impl Filter {
    /// From the number in `resample`.
    #[must_use]
    pub fn from_pillow(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Nearest,
            1 => Self::Lanczos,
            2 => Self::Bilinear,
            3 => Self::Bicubic,
            4 => Self::Box,
            5 => Self::Hamming,
            _ => return None,
        })
    }

    fn algorithm(self) -> ResizeAlg {
        match self {
            Self::Nearest => ResizeAlg::Nearest,
            Self::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
            Self::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Self::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Self::Box => ResizeAlg::Convolution(FilterType::Box),
            Self::Hamming => ResizeAlg::Convolution(FilterType::Hamming),
        }
    }
}

/// Everything that happens between pixels and tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preprocessing {
    /// The first step.
    pub resize: Resize,
    /// The filter of the resize.
    pub filter: Filter,
    /// `(width, height)` of the centre crop; the odd pixel goes to the right and bottom.
    pub crop: Option<(u32, u32)>,
    /// Factor per channel (red, green, blue): `rescale / std`.
    pub scale: [f32; 3],
    /// Summand per channel: `-mean / std`.
    pub offset: [f32; 3],
    /// Whether the tensor has blue first.
    pub bgr: bool,
}

/// Buffers that a thread reuses between images.
#[derive(Default)]
struct Workspace {
    resizer: Resizer,
    resized: Vec<u8>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl Preprocessing {
    /// Folds `(value × rescale - mean) / std` into one factor and one summand.
    #[must_use]
    pub fn new(
        resize: Resize,
        filter: Filter,
        crop: Option<(u32, u32)>,
        rescale: f64,
        mean: [f32; 3],
        std: [f32; 3],
    ) -> Self {
        let scale = std.map(|deviation| (rescale / f64::from(deviation)) as f32);
        let offset = std::array::from_fn(|channel| (-f64::from(mean[channel]) / f64::from(std[channel])) as f32);
        Self { resize, filter, crop, scale, offset, bgr: false }
    }

    /// Divides the result by `std` once more.
    pub(super) fn divide_by(&mut self, std: [f32; 3]) {
        for (channel, deviation) in std.iter().enumerate() {
            self.scale[channel] /= deviation;
            self.offset[channel] /= deviation;
        }
    }

    /// Sides `(width, height)` of the tensor.
    #[must_use]
    pub fn output(&self) -> (u32, u32) {
        self.crop.unwrap_or_else(|| self.resize.sides())
    }

    /// f32 values of one image's tensor.
    #[must_use]
    pub fn tensor_len(&self) -> usize {
        let (width, height) = self.output();
        3 * width as usize * height as usize
    }

    /// The text that goes into the model's fingerprint: JSON, keys in the order of declaration.
    pub(super) fn canonical(&self) -> String {
        let json = serde_json::to_string(self).expect("numbers, names and nothing else always serialise");
        format!("preprocessing {VERSION} {json}")
    }

    /// Writes the tensor `[3, H, W]` of `image` into `slot` of [`tensor_len`](Self::tensor_len) values.
    ///
    /// # Errors
    /// 422 if the image has no pixels.
    pub fn write(&self, image: &Image, slot: &mut [f32]) -> Result<(), Rejection> {
        if image.width == 0 || image.height == 0 {
            let detail = format!("the image is {}×{} pixels, at least 1×1 is needed", image.width, image.height);
            return Err(Rejection::unusable("image_empty", detail));
        }
        let (width, height) = self.output();
        WORKSPACE.with_borrow_mut(|workspace| {
            let Workspace { resizer, resized } = workspace;
            resized.resize(self.tensor_len(), 0);
            let broken =
                |error: &dyn std::fmt::Display| Rejection::internal(format!("an image could not be resized: {error}"));
            let source = ImageRef::new(image.width, image.height, &image.pixels, PixelType::U8x3)
                .map_err(|error| broken(&error))?;
            let mut canvas =
                Canvas::from_slice_u8(width, height, resized, PixelType::U8x3).map_err(|error| broken(&error))?;
            let mut options = ResizeOptions::new().resize_alg(self.filter.algorithm());
            options.cropping = SrcCropping::Crop(self.window(image.width, image.height));
            resizer.resize(&source, &mut canvas, &options).map_err(|error| broken(&error))?;
            self.normalise(resized, slot);
            Ok(())
        })
    }

    /// The part of a `width × height` image that survives resize and crop, in the image's own coordinates.
    fn window(&self, width: u32, height: u32) -> CropBox {
        let resized = self.resize.apply(width, height);
        let cropped = self.output();
        let (left, wide) = span(width, resized.0, cropped.0);
        let (top, high) = span(height, resized.1, cropped.1);
        CropBox { left, top, width: wide, height: high }
    }

    /// `[H, W, 3]` bytes to `[3, H, W]` floats.
    fn normalise(&self, pixels: &[u8], slot: &mut [f32]) {
        let plane = slot.len() / 3;
        for (index, target) in slot.chunks_exact_mut(plane.max(1)).enumerate() {
            let channel = if self.bgr { 2 - index } else { index };
            let (scale, offset) = (self.scale[channel], self.offset[channel]);
            for (value, pixel) in target.iter_mut().zip(pixels.chunks_exact(3)) {
                *value = f32::from(pixel[channel]) * scale + offset;
            }
        }
    }
}

/// Along one axis: start and length of the cropped window, in pixels of the source.
fn span(source: u32, resized: u32, cropped: u32) -> (f64, f64) {
    if resized == cropped {
        return (0.0, f64::from(source));
    }
    let scale = f64::from(source) / f64::from(resized);
    let start = f64::from((resized - cropped) / 2) * scale;
    (start, (f64::from(cropped) * scale).min(f64::from(source) - start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::Digest;

    fn image(width: u32, height: u32, color: impl Fn(u32, u32) -> [u8; 3]) -> Image {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| color(x, y)).collect();
        Image { width, height, pixels, sha256: Digest([0; 32]), room: None }
    }

    fn tensor(preprocessing: &Preprocessing, image: &Image) -> Vec<f32> {
        let mut slot = vec![f32::NAN; preprocessing.tensor_len()];
        preprocessing.write(image, &mut slot).unwrap();
        slot
    }

    fn plain(resize: Resize, filter: Filter, crop: Option<(u32, u32)>) -> Preprocessing {
        Preprocessing::new(resize, filter, crop, 1.0, [0.0; 3], [1.0; 3])
    }

    #[test]
    fn a_constant_image_gives_the_formula_in_every_place() {
        let mean = [0.485, 0.456, 0.406];
        let std = [0.229, 0.224, 0.225];
        let color = [10, 128, 255];
        for filter in
            [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic, Filter::Box, Filter::Hamming]
        {
            let crop = Some((32, 32));
            let preprocessing = Preprocessing::new(Resize::Shortest(36), filter, crop, 1.0 / 255.0, mean, std);
            let found = tensor(&preprocessing, &image(97, 61, |_, _| color));
            for (channel, plane) in found.chunks(32 * 32).enumerate() {
                let expected = (f32::from(color[channel]) / 255.0 - mean[channel]) / std[channel];
                assert!(plane.iter().all(|value| (value - expected).abs() < 1e-5), "{filter:?} {channel}");
            }
        }
    }

    #[test]
    fn the_longer_side_is_cut_down_to_a_whole_number() {
        assert_eq!(Resize::Shortest(224).apply(451, 300), (336, 224));
        assert_eq!(Resize::Shortest(224).apply(300, 451), (224, 336));
        assert_eq!(Resize::Shortest(256).apply(640, 427), (383, 256));
        assert_eq!(Resize::Shortest(224).apply(5, 5), (224, 224));
        assert_eq!(Resize::Exact { width: 7, height: 9 }.apply(300, 451), (7, 9));
    }

    #[test]
    fn the_crop_starts_at_the_lower_half_of_an_odd_remainder() {
        // Nothing is resized, so that the window must be copied to the pixel: (9 - 4) / 2 = 2, (6 - 4) / 2 = 1.
        let preprocessing = plain(Resize::Exact { width: 9, height: 6 }, Filter::Bicubic, Some((4, 4)));
        let found = tensor(&preprocessing, &image(9, 6, |x, y| [x as u8, y as u8, 0]));
        let expected: Vec<f32> = (0..16).map(|i| (2 + i % 4) as f32).collect();
        assert_eq!(found[..16], expected);
        let expected: Vec<f32> = (0..16).map(|i| (1 + i / 4) as f32).collect();
        assert_eq!(found[16..32], expected);
    }

    #[test]
    fn cropping_while_resizing_equals_cropping_afterwards() {
        let source = image(211, 143, |x, y| [(x * 7 % 256) as u8, (y * 5 % 256) as u8, (x * y % 256) as u8]);
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            let (width, height) = Resize::Shortest(64).apply(211, 143);
            let whole = tensor(&plain(Resize::Exact { width, height }, filter, None), &source);
            let window = tensor(&plain(Resize::Shortest(64), filter, Some((48, 48))), &source);
            let (left, top) = ((width - 48) / 2, (height - 48) / 2);
            for (index, value) in window.iter().enumerate() {
                let (channel, y, x) = (index / (48 * 48), index / 48 % 48, index % 48);
                let (y, x) = (y + top as usize, x + left as usize);
                let other = whole[channel * (width * height) as usize + y * width as usize + x];
                assert!((value - other).abs() <= 1.0, "{filter:?} at {x}, {y}: {value} and {other}");
            }
        }
    }

    #[test]
    fn downscaling_averages_instead_of_skipping() {
        let stripes = image(64, 64, |x, _| if x % 2 == 0 { [0; 3] } else { [255; 3] });
        let preprocessing = plain(Resize::Exact { width: 16, height: 16 }, Filter::Bilinear, None);
        assert!(tensor(&preprocessing, &stripes).iter().all(|value| (100.0..156.0).contains(value)));
    }

    #[test]
    fn planes_follow_the_channels_and_bgr_turns_them_round() {
        let mut preprocessing = plain(Resize::Exact { width: 2, height: 2 }, Filter::Bilinear, None);
        let source = image(2, 2, |_, _| [1, 2, 3]);
        assert_eq!(tensor(&preprocessing, &source), [1., 1., 1., 1., 2., 2., 2., 2., 3., 3., 3., 3.]);
        preprocessing.bgr = true;
        assert_eq!(tensor(&preprocessing, &source)[..5], [3., 3., 3., 3., 2.]);
    }

    #[test]
    fn extreme_shapes_are_resized_and_empty_images_are_refused() {
        let preprocessing = plain(Resize::Shortest(32), Filter::Bicubic, Some((32, 32)));
        for (width, height) in [(1, 1), (16_384, 1), (1, 16_384), (3, 2)] {
            let found = tensor(&preprocessing, &image(width, height, |_, _| [9; 3]));
            assert!(found.iter().all(|value| (value - 9.0).abs() < 1e-3), "{width}×{height}");
        }
        let mut slot = vec![0.0; preprocessing.tensor_len()];
        let refused = preprocessing.write(&image(0, 5, |_, _| [0; 3]), &mut slot).unwrap_err();
        assert_eq!((refused.status, &*refused.code), (422, "image_empty"));
    }

    #[test]
    fn the_fingerprint_text_tells_preprocessings_apart() {
        let one = plain(Resize::Shortest(32), Filter::Bicubic, Some((32, 32)));
        let mut other = one.clone();
        other.offset[1] = -0.1;
        assert_ne!(one.canonical(), other.canonical());
        assert!(one.canonical().starts_with("preprocessing 1 {\"resize\":{\"Shortest\":32}"));
    }
}
