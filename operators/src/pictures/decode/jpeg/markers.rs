//! JPEG markers (ITU-T T.81, annex B): reads the frame header, the tables, EXIF, and where each scan is.
//!
//! A file is walked from marker to marker before anything is decoded: it must reach its end marker, and it may not have
//! more than [`MAX_SCANS`] scans.

use pipeline::Rejection;

use crate::pictures::decode::format::Format;
use crate::pictures::decode::rejections::{corrupt, truncated};

/// Most scans per image. A progressive file has about ten. Every scan visits every block, so without a limit a file of
/// many tiny scans costs minutes of work for a few kilobytes.
const MAX_SCANS: usize = 100;

/// The markers used here (T.81, table B.1).
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
    pub(super) id: u8,
    /// Sampling factors, 1 to 4.
    pub(super) h: u8,
    pub(super) v: u8,
    /// Index of the quantisation table.
    pub(super) quant: usize,
}

/// The frame header.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    marker: u8,
    pub(super) width: u16,
    pub(super) height: u16,
    /// 1, 3 or 4.
    pub(super) components: Vec<Component>,
}

/// A Huffman table as stored in the file: the number of codes of each length from 1 to 16, and their symbols.
#[derive(Clone, Copy)]
pub(super) struct HuffmanTable<'b> {
    pub(super) counts: [u8; 16],
    pub(super) symbols: &'b [u8],
}

/// Everything before the first scan.
pub(super) struct Jpeg<'b> {
    bytes: &'b [u8],
    pub(super) frame: Frame,
    /// The EXIF block with its prefix, if there is one.
    pub(super) exif: Option<&'b [u8]>,
    /// Colour transform of an Adobe marker: 0 none, 1 YCbCr, 2 YCCK.
    adobe: Option<u8>,
    /// Quantisation tables, in the zigzag order of the file.
    pub(super) quant: [Option<[u16; 64]>; 4],
    pub(super) dc: [Option<HuffmanTable<'b>>; 4],
    pub(super) ac: [Option<HuffmanTable<'b>>; 4],
    /// MCUs between restart markers; 0 for none.
    pub(super) restart: usize,
    /// Offset of the first SOS marker.
    first_scan: usize,
}

/// One scan: its header and its entropy-coded bytes, restart markers included.
pub(super) struct Scan<'b> {
    pub(super) header: &'b [u8],
    pub(super) data: &'b [u8],
}

/// Reads everything before the first scan.
///
/// # Errors
/// 422 if the markers are broken or end early, 415 for kinds of JPEG that are not supported.
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
                return Err(corrupt("its first scan precedes its frame header"));
            }
            marker::SOS => {
                jpeg.first_scan = after - 2;
                return Ok(jpeg);
            }
            marker::EOI => return Err(corrupt("the JPEG contains no image")),
            marker::SOI => return Err(corrupt("it contains a second start marker")),
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
    let detail = format!("{what} is not supported; save it as a baseline or progressive JPEG");
    Rejection::unsupported("image_type", detail)
}

fn read_frame(code: u8, segment: &[u8]) -> Result<Frame, Rejection> {
    match code {
        marker::SOF_BASELINE..=marker::SOF_PROGRESSIVE => {}
        0xc3 => return Err(unsupported("a lossless JPEG")),
        0xc5..=0xc7 => return Err(unsupported("a hierarchical JPEG")),
        _ => return Err(unsupported("an arithmetic-coded JPEG")),
    }
    let broken = || corrupt("its frame header is invalid");
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

impl Frame {
    pub(super) fn is_progressive(&self) -> bool {
        self.marker == marker::SOF_PROGRESSIVE
    }
}

impl<'b> Jpeg<'b> {
    fn read_segment(&mut self, code: u8, segment: &'b [u8]) -> Result<(), Rejection> {
        match code {
            marker::DHT => self.read_huffman(segment)?,
            marker::DQT => self.read_quantisation(segment)?,
            marker::DRI => {
                self.restart = be16(segment, 0).ok_or_else(|| corrupt("its restart interval is truncated"))?
            }
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
        let broken = || corrupt("its quantisation tables are invalid");
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
        let broken = || corrupt("its Huffman tables are invalid");
        while let Some((&head, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(broken)?;
            let length = counts.iter().map(|&count| usize::from(count)).sum();
            let symbols = rest.get(..length).ok_or_else(broken)?;
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let table = tables.get_mut(usize::from(head & 15)).ok_or_else(broken)?;
            *table = Some(HuffmanTable { counts: *counts, symbols });
            segment = &rest[length..];
        }
        Ok(())
    }

    /// Finds every scan up to the end marker. Bytes after it are ignored.
    pub(super) fn scans(&self) -> Result<Vec<Scan<'b>>, Rejection> {
        let bytes = self.bytes;
        let cut = || truncated(Format::Jpeg, bytes);
        let mut scans: Vec<Scan<'b>> = Vec::new();
        let mut at = self.first_scan;
        loop {
            let (code, after) = next_marker(bytes, at).ok_or_else(cut)?;
            match code {
                marker::EOI if scans.is_empty() => return Err(corrupt("the JPEG contains no image")),
                marker::EOI => return Ok(scans),
                marker::SOI => return Err(corrupt("it contains a second start marker")),
                marker::TEM | marker::RST0..=marker::RST7 => at = after,
                marker::SOS => {
                    let header = segment(bytes, after)?;
                    let begin = after + 2 + header.len();
                    let end = scan_end(bytes, begin).ok_or_else(cut)?;
                    if scans.len() == MAX_SCANS {
                        return Err(corrupt(format!(
                            "it has more than {MAX_SCANS} scans; a normal file has about ten"
                        )));
                    }
                    scans.push(Scan { header, data: &bytes[begin..end] });
                    at = end;
                }
                _ => at = after + 2 + segment(bytes, after)?.len(),
            }
        }
    }

    /// Bytes of coefficients that a progressive decoder stores until the last scan; 0 for a sequential file.
    pub(super) fn coefficient_bytes(&self) -> u64 {
        if !self.frame.is_progressive() {
            return 0;
        }
        let area = |component: &Component| u64::from(component.h) * u64::from(component.v);
        let most = self.frame.components.iter().map(|c| u64::from(c.h)).max().unwrap_or(1)
            * self.frame.components.iter().map(|c| u64::from(c.v)).max().unwrap_or(1);
        let samples: u64 = self.frame.components.iter().map(area).sum();
        u64::from(self.frame.width) * u64::from(self.frame.height) * samples / most * 2
    }

    /// Whether the file declares its three components as RGB.
    pub(super) fn is_rgb(&self) -> bool {
        match self.frame.components.as_slice() {
            [r, g, b] => self.adobe == Some(0) || [*b"RGB", *b"rgb"].contains(&[r.id, g.id, b.id]),
            _ => false,
        }
    }
}

/// The next marker from `at` on, and the offset of its segment. Entropy-coded data in between is skipped.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += memchr::memchr(0xff, bytes.get(at..)?)? + 1;
        match *bytes.get(at)? {
            // Byte stuffing, or a fill byte before the marker.
            0x00 | 0xff => {}
            code => return Some((code, at + 1)),
        }
    }
}

/// Where the entropy-coded data that begins at `at` ends: at the first marker that is not a restart marker.
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
        return Err(corrupt("one of its segments is shorter than its length field"));
    }
    bytes.get(at + 2..at + length).ok_or_else(|| truncated(Format::Jpeg, bytes))
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes([field[0], field[1]])))
}
