//! Images in the data: decodes the `data:` URL, detects the type, computes the displayed size.

use base64::Engine as _;
use serde::Deserialize;

use super::hyperlink::check_link;
use crate::pictures::decode::{Format, probe};

/// English Metric Units: 914 400 to an inch, 36 000 to a millimetre.
const EMU_PER_INCH: f64 = 914_400.0;
const EMU_PER_MM: f64 = 36_000.0;
/// Resolution of an image that does not declare one.
const DEFAULT_DPI: f64 = 72.0;
/// Largest image, in bytes: the limit of one part of a package.
const MAX_BYTES: usize = 16 << 20;
/// Word's limit of a page's side, 22 inches.
const MAX_MM: f64 = 558.8;

/// `{"$type": "image", …}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageJson {
    /// `data:image/png;base64,…`
    src: String,
    width_mm: Option<f64>,
    height_mm: Option<f64>,
    /// Alternative text, for readers who cannot see the image.
    alt: Option<String>,
    /// URL that a click opens.
    link: Option<String>,
}

/// An image as embedded in a document.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
    /// Extension and media type.
    pub(super) kind: (&'static str, &'static str),
    /// Width and height in EMU.
    pub(super) size: (i64, i64),
    pub(super) alt: String,
    pub(super) link: Option<String>,
}

impl Image {
    /// Decodes and measures an image.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    pub(super) fn read(json: ImageJson) -> Result<Self, String> {
        let bytes = decode(&json.src)?;
        let header = probe(&bytes).map_err(|why| why.detail)?;
        let kind = match header.format {
            Format::Png => ("png", "image/png"),
            Format::Jpeg => ("jpeg", "image/jpeg"),
            Format::Gif => ("gif", "image/gif"),
            _ => {
                return Err("the image is WebP, which word processors do not display; expected PNG, JPEG or GIF".into());
            }
        };
        let (dpi_x, dpi_y) = resolution(&bytes, header.format);
        let natural = (f64::from(header.width) / dpi_x * EMU_PER_INCH, f64::from(header.height) / dpi_y * EMU_PER_INCH);
        let size = scaled(natural, millimetres(json.width_mm, "width_mm")?, millimetres(json.height_mm, "height_mm")?);
        json.link.as_deref().map_or(Ok(()), check_link)?;
        Ok(Self { bytes, kind, size, alt: json.alt.unwrap_or_default(), link: json.link })
    }
}

fn decode(src: &str) -> Result<Vec<u8>, String> {
    let shown: String = src.chars().take(40).collect();
    let content = src.strip_prefix("data:").and_then(|rest| rest.split_once(','));
    let Some((_, text)) = content.filter(|(kind, _)| kind.ends_with(";base64")) else {
        return Err(format!("src {shown:?} is not a base64 data: URL; expected data:image/png;base64,…"));
    };
    if text.len() / 4 * 3 > MAX_BYTES {
        return Err(format!("the image has {} bytes; the limit is {MAX_BYTES}", text.len() / 4 * 3));
    }
    base64::engine::general_purpose::STANDARD
        .decode(text.trim())
        .map_err(|why| format!("src is not valid base64: {why}"))
}

fn millimetres(given: Option<f64>, key: &str) -> Result<Option<f64>, String> {
    match given {
        Some(mm) if !(mm > 0.0 && mm <= MAX_MM) => {
            Err(format!("{key} is {mm}; expected more than 0 and at most {MAX_MM}"))
        }
        _ => Ok(given.map(|mm| mm * EMU_PER_MM)),
    }
}

/// With one side given, the other preserves the aspect ratio; with none, the size follows from the image's resolution.
fn scaled(natural: (f64, f64), width: Option<f64>, height: Option<f64>) -> (i64, i64) {
    let (width, height) = match (width, height) {
        (Some(width), Some(height)) => (width, height),
        (Some(width), None) => (width, natural.1 * width / natural.0),
        (None, Some(height)) => (natural.0 * height / natural.1, height),
        (None, None) => natural,
    };
    let most = MAX_MM * EMU_PER_MM;
    let whole = |side: f64| side.round().clamp(1.0, most) as i64;
    (whole(width), whole(height))
}

/// Dots per inch, horizontal and vertical.
fn resolution(bytes: &[u8], format: Format) -> (f64, f64) {
    let found = match format {
        Format::Png => png_resolution(bytes),
        Format::Jpeg => jfif_resolution(bytes),
        _ => None,
    };
    found.filter(|(x, y)| *x >= 1.0 && *y >= 1.0).unwrap_or((DEFAULT_DPI, DEFAULT_DPI))
}

/// The chunk `pHYs`: dots per metre, before the first `IDAT`.
fn png_resolution(bytes: &[u8]) -> Option<(f64, f64)> {
    let mut at = 8;
    loop {
        let length = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize;
        let kind = bytes.get(at + 4..at + 8)?;
        if kind == b"IDAT" {
            return None;
        }
        if kind == b"pHYs" {
            let data = bytes.get(at + 8..at + 17)?;
            let per_metre = |at: usize| Some(f64::from(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?)));
            let dpi = |dots: f64| (dots * 0.0254).round();
            return (data[8] == 1).then_some((dpi(per_metre(0)?), dpi(per_metre(4)?)));
        }
        at = at.checked_add(length)?.checked_add(12)?;
    }
}

/// The segment `APP0` of JFIF, which is the first segment.
fn jfif_resolution(bytes: &[u8]) -> Option<(f64, f64)> {
    let segment = bytes.get(2..18).filter(|head| head[..2] == [0xff, 0xe0] && &head[4..9] == b"JFIF\0")?;
    let density = |at: usize| f64::from(u16::from_be_bytes([segment[at], segment[at + 1]]));
    let (x, y) = (density(12), density(14));
    match segment[11] {
        1 => Some((x, y)),
        2 => Some((x * 2.54, y * 2.54)),
        _ => None,
    }
}
