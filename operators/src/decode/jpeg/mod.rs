//! JPEG (ITU-T T.81): the markers of a file, and which decoder its pixels get.
//!
//! A file is walked from marker to marker before anything is decoded: it must reach its end marker, and it may not have
//! more than [`MAX_SCANS`] scans. Then
//! - grey, YCbCr and RGB at full size are decoded by zune-jpeg in strict mode;
//! - smaller sizes of the common kind (one sequential scan of grey or YCbCr) are decoded here, see [`reduced`];
//! - smaller sizes of progressive files, four colours, and whatever zune-jpeg gets wrong, are decoded by jpeg-decoder.

mod entropy;
mod reduced;

use pipeline::Rejection;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::header::{Format, corrupt, truncated};
use super::pixels::check_working_bytes;
use super::rgb::{self, Rgb};

/// Most scans of one picture. A progressive file has about ten; every scan visits every block, so a file of tiny scans
/// is a way to buy minutes of work with kilobytes.
const MAX_SCANS: usize = 100;

/// The markers that matter here (T.81, table B.1).
mod marker {
    pub const SOF_BASELINE: u8 = 0xc0;
    pub const SOF_PROGRESSIVE: u8 = 0xc2;
    pub const DHT: u8 = 0xc4;
    pub const JPG: u8 = 0xc8;
    pub const DAC: u8 = 0xcc;
    pub const RST0: u8 = 0xd0;
    pub const RST7: u8 = 0xd7;
    pub const SOI: u8 = 0xd8;
    pub const EOI: u8 = 0xd9;
    pub const SOS: u8 = 0xda;
    pub const DQT: u8 = 0xdb;
    pub const DRI: u8 = 0xdd;
    pub const APP1: u8 = 0xe1;
    pub const APP14: u8 = 0xee;
    pub const TEM: u8 = 0x01;
}

/// One colour component of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Component {
    id: u8,
    /// Sampling factors, 1 to 4.
    h: u8,
    v: u8,
    /// Which quantisation table.
    quant: usize,
}

/// The frame header.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    marker: u8,
    pub(super) width: u16,
    pub(super) height: u16,
    /// 1, 3 or 4.
    components: Vec<Component>,
}

/// A Huffman code as the file gives it: how many codes of each length from 1 to 16, and what they stand for.
#[derive(Clone, Copy)]
struct Code<'b> {
    counts: [u8; 16],
    symbols: &'b [u8],
}

/// Everything before the first scan.
pub(super) struct Jpeg<'b> {
    bytes: &'b [u8],
    pub(super) frame: Frame,
    /// The EXIF block with its prefix, if there is one.
    pub(super) exif: Option<&'b [u8]>,
    /// Colour transform of an Adobe marker: 0 none, 1 YCbCr, 2 YCCK.
    adobe: Option<u8>,
    /// In the order of the file, not zigzag order undone.
    quant: [Option<[u16; 64]>; 4],
    dc: [Option<Code<'b>>; 4],
    ac: [Option<Code<'b>>; 4],
    /// MCUs between restart markers; 0 for none.
    restart: usize,
    /// Where the first SOS marker is.
    first_scan: usize,
}

/// One scan: its header and its entropy-coded bytes, restart markers included.
struct Scan<'b> {
    header: &'b [u8],
    data: &'b [u8],
}

/// Reads everything before the first scan.
///
/// # Errors
/// 422 if the markers are broken or end early, 415 for the kinds of JPEG that nobody decodes.
pub(super) fn read_header(bytes: &[u8]) -> Result<Jpeg<'_>, Rejection> {
    let mut jpeg = Jpeg {
        bytes,
        frame: Frame { marker: 0, width: 0, height: 0, components: Vec::new() },
        exif: None,
        adobe: None,
        quant: [None; 4],
        dc: [None; 4],
        ac: [None; 4],
        restart: 0,
        first_scan: 0,
    };
    let mut at = 2;
    loop {
        let (code, after) = next_marker(bytes, at).ok_or_else(|| truncated(Format::Jpeg, bytes))?;
        match code {
            marker::SOS if jpeg.frame.components.is_empty() => {
                return Err(corrupt("its first scan comes before its header"));
            }
            marker::SOS => {
                jpeg.first_scan = after - 2;
                return Ok(jpeg);
            }
            marker::EOI => return Err(corrupt("it is a JPEG without a picture")),
            marker::SOI => return Err(corrupt("a JPEG begins inside it")),
            marker::TEM | marker::RST0..=marker::RST7 => {
                at = after;
                continue;
            }
            _ => {}
        }
        let segment = segment(bytes, after)?;
        at = after + 2 + segment.len();
        jpeg.read_segment(code, segment)?;
    }
}

fn unsupported(what: &str) -> Rejection {
    let detail = format!("this is {what}, which is hardly ever used and not decoded: save it as an ordinary JPEG");
    Rejection::unsupported("image_type", detail)
}

fn read_frame(code: u8, segment: &[u8]) -> Result<Frame, Rejection> {
    match code {
        marker::SOF_BASELINE..=marker::SOF_PROGRESSIVE => {}
        0xc3 => return Err(unsupported("a lossless JPEG")),
        0xc5..=0xc7 => return Err(unsupported("a hierarchical JPEG")),
        _ => return Err(unsupported("an arithmetic-coded JPEG")),
    }
    let broken = || corrupt("its frame header makes no sense");
    let [precision, _, _, _, _, count, ..] = *segment else { return Err(broken()) };
    if precision != 8 {
        return Err(unsupported(&format!("a JPEG of {precision} bits per sample")));
    }
    if ![1, 3, 4].contains(&count) {
        return Err(unsupported(&format!("a JPEG of {count} colour components")));
    }
    let height = be16(segment, 1).ok_or_else(broken)? as u16;
    let width = be16(segment, 3).ok_or_else(broken)? as u16;
    let fields = segment.get(6..6 + 3 * usize::from(count)).ok_or_else(broken)?;
    let mut components = Vec::with_capacity(usize::from(count));
    for field in fields.chunks_exact(3) {
        let component = Component { id: field[0], h: field[1] >> 4, v: field[1] & 15, quant: usize::from(field[2]) };
        if !(1..=4).contains(&component.h) || !(1..=4).contains(&component.v) || component.quant > 3 {
            return Err(broken());
        }
        components.push(component);
    }
    Ok(Frame { marker: code, width, height, components })
}

impl<'b> Jpeg<'b> {
    fn read_segment(&mut self, code: u8, segment: &'b [u8]) -> Result<(), Rejection> {
        match code {
            marker::DHT => self.read_huffman(segment)?,
            marker::DQT => self.read_quantisation(segment)?,
            marker::DRI => self.restart = be16(segment, 0).ok_or_else(|| corrupt("its restart interval is cut"))?,
            marker::APP1 if segment.starts_with(b"Exif\0\0") => self.exif = self.exif.or(Some(segment)),
            marker::APP14 if segment.starts_with(b"Adobe") => self.adobe = segment.get(11).copied().or(self.adobe),
            marker::JPG | marker::DAC => {}
            0xc0..=0xcf if !self.frame.components.is_empty() => return Err(unsupported("a hierarchical JPEG")),
            0xc0..=0xcf => self.frame = read_frame(code, segment)?,
            _ => {}
        }
        Ok(())
    }

    fn read_quantisation(&mut self, mut segment: &[u8]) -> Result<(), Rejection> {
        let broken = || corrupt("its quantisation tables make no sense");
        while let Some((&head, rest)) = segment.split_first() {
            let wide = usize::from(head >> 4 != 0);
            let values = rest.get(..64 << wide).ok_or_else(broken)?;
            let table = self.quant.get_mut(usize::from(head & 15)).ok_or_else(broken)?;
            let value =
                |i: usize| if wide == 0 { u16::from(values[i]) } else { be16(values, 2 * i).unwrap_or(0) as u16 };
            *table = Some(std::array::from_fn(value));
            segment = &rest[64 << wide..];
        }
        Ok(())
    }

    fn read_huffman(&mut self, mut segment: &'b [u8]) -> Result<(), Rejection> {
        let broken = || corrupt("its Huffman tables make no sense");
        while let Some((&head, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(broken)?;
            let length = counts.iter().map(|&count| usize::from(count)).sum();
            let symbols = rest.get(..length).ok_or_else(broken)?;
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let table = tables.get_mut(usize::from(head & 15)).ok_or_else(broken)?;
            *table = Some(Code { counts: *counts, symbols });
            segment = &rest[length..];
        }
        Ok(())
    }

    /// Walks from the first scan to the end of the picture. What follows the end marker is not looked at.
    fn scans(&self) -> Result<Vec<Scan<'b>>, Rejection> {
        let bytes = self.bytes;
        let cut = || truncated(Format::Jpeg, bytes);
        let mut scans: Vec<Scan<'b>> = Vec::new();
        let mut at = self.first_scan;
        loop {
            let (code, after) = next_marker(bytes, at).ok_or_else(cut)?;
            match code {
                marker::EOI if scans.is_empty() => return Err(corrupt("it is a JPEG without a picture")),
                marker::EOI => return Ok(scans),
                marker::SOI => return Err(corrupt("a JPEG begins inside it")),
                marker::TEM | marker::RST0..=marker::RST7 => at = after,
                marker::SOS => {
                    let header = segment(bytes, after)?;
                    let begin = after + 2 + header.len();
                    let end = scan_end(bytes, begin).ok_or_else(cut)?;
                    if scans.len() == MAX_SCANS {
                        return Err(corrupt(format!(
                            "it has more than {MAX_SCANS} scans, an honest file has about ten"
                        )));
                    }
                    scans.push(Scan { header, data: &bytes[begin..end] });
                    at = end;
                }
                _ => at = after + 2 + segment(bytes, after)?.len(),
            }
        }
    }

    /// Bytes of coefficients that a progressive picture keeps until its last scan; 0 for a sequential one.
    fn coefficient_bytes(&self) -> u64 {
        if self.frame.marker != marker::SOF_PROGRESSIVE {
            return 0;
        }
        let area = |component: &Component| u64::from(component.h) * u64::from(component.v);
        let most = self.frame.components.iter().map(|c| u64::from(c.h)).max().unwrap_or(1)
            * self.frame.components.iter().map(|c| u64::from(c.v)).max().unwrap_or(1);
        let samples: u64 = self.frame.components.iter().map(area).sum();
        u64::from(self.frame.width) * u64::from(self.frame.height) * samples / most * 2
    }

    /// Whether zune-jpeg decodes the file rightly: 0.5 silently draws another picture where a sequential file has several
    /// scans and odd factors, and loses samples where the first component is not the finest.
    fn suits_zune(&self, scans: &[Scan<'_>]) -> bool {
        let components = &self.frame.components;
        let one_pass = scans.len() == 1 || self.frame.marker == marker::SOF_PROGRESSIVE;
        let [first, others @ ..] = components.as_slice() else { return false };
        let known = first.h <= 2 && first.v <= 2 && others.iter().all(|other| (other.h, other.v) == (1, 1));
        one_pass && components.len() < 4 && (known || others.is_empty())
    }

    /// Whether the file says that its three components are RGB.
    fn is_rgb(&self) -> bool {
        match self.frame.components.as_slice() {
            [r, g, b] => self.adobe == Some(0) || [*b"RGB", *b"rgb"].contains(&[r.id, g.id, b.id]),
            _ => false,
        }
    }
}

/// Most memory that [`decode`] takes, in bytes, as far as the markers before the first scan show.
pub(super) fn working_bytes(bytes: &[u8], divisor: u32) -> Result<u64, Rejection> {
    /// Four planes and three bytes of the result for each pixel.
    const WHOLE: u64 = 7;
    let jpeg = read_header(bytes)?;
    let divisor = if jpeg.is_rgb() { 1 } else { divisor };
    let pixels = u64::from(jpeg.frame.width) * u64::from(jpeg.frame.height) / u64::from(divisor * divisor);
    Ok(pixels * WHOLE + jpeg.coefficient_bytes())
}

/// Decodes to `1/divisor` of the size (1, 2, 4 or 8; rounded up) or, where that is not possible, to full size.
///
/// # Errors
/// 422 if anything of the picture is missing or wrong, 413 if decoding would take more memory than a picture may.
pub(super) fn decode(bytes: &[u8], divisor: u32) -> Result<Rgb, Rejection> {
    let jpeg = read_header(bytes)?;
    let scans = jpeg.scans()?;
    let frame = &jpeg.frame;
    let scaled = divisor > 1 && !jpeg.is_rgb() || !jpeg.suits_zune(&scans);
    let divisor = if scaled { divisor } else { 1 };
    let pixels = u64::from(frame.width) * u64::from(frame.height) / u64::from(divisor * divisor);
    let planes = if scaled { frame.components.len() as u64 } else { 0 };
    check_working_bytes(pixels * (3 + planes) + jpeg.coefficient_bytes())?;
    if !scaled {
        return full(bytes, frame);
    }
    if divisor > 1
        && frame.marker != marker::SOF_PROGRESSIVE
        && let Some(decoded) = reduced::decode(&jpeg, &scans, divisor)
    {
        return decoded;
    }
    fraction(bytes, frame, divisor)
}

/// Every pixel of grey, YCbCr or RGB, by zune-jpeg.
fn full(bytes: &[u8], frame: &Frame) -> Result<Rgb, Rejection> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(frame.width))
        .set_max_height(usize::from(frame.height))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let pixels = decoder.decode().map_err(corrupt)?;
    Rgb::new(frame.width.into(), frame.height.into(), pixels)
}

/// A fraction of the size in the DCT domain, by jpeg-decoder: the low frequencies of every block through a smaller
/// inverse transform.
fn fraction(bytes: &[u8], frame: &Frame, divisor: u32) -> Result<Rgb, Rejection> {
    let side = |full: u16| u32::from(full).div_ceil(divisor) as u16;
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    let (width, height) = decoder.scale(side(frame.width), side(frame.height)).map_err(corrupt)?;
    let (width, height) = (u32::from(width), u32::from(height));
    let pixels = decoder.decode().map_err(corrupt)?;
    match decoder.info().map(|info| info.pixel_format) {
        Some(jpeg_decoder::PixelFormat::RGB24) => Rgb::new(width, height, pixels),
        Some(jpeg_decoder::PixelFormat::L8) => rgb::from_grey(width, height, &pixels),
        Some(jpeg_decoder::PixelFormat::CMYK32) => rgb::from_cmyk(width, height, pixels),
        _ => Err(corrupt("its colours changed on the way")),
    }
}

/// The next marker from `at` on and where its segment begins. Entropy-coded data on the way is passed over.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += memchr::memchr(0xff, bytes.get(at..)?)? + 1;
        match *bytes.get(at)? {
            // A stuffed 0xFF of the data, or a fill byte before the marker.
            0x00 | 0xff => {}
            code => return Some((code, at + 1)),
        }
    }
}

/// Where the entropy-coded data that begins at `at` ends: at the first marker that is no restart.
fn scan_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let (code, after) = next_marker(bytes, at)?;
        if !(marker::RST0..=marker::RST7).contains(&code) {
            return Some(after - 2);
        }
        at = after;
    }
}

/// The contents of the segment whose length field is at `at`.
fn segment(bytes: &[u8], at: usize) -> Result<&[u8], Rejection> {
    let length = be16(bytes, at).ok_or_else(|| truncated(Format::Jpeg, bytes))?;
    if length < 2 {
        return Err(corrupt("a segment of it is shorter than its own length field"));
    }
    bytes.get(at + 2..at + length).ok_or_else(|| truncated(Format::Jpeg, bytes))
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes([field[0], field[1]])))
}
