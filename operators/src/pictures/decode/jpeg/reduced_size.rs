//! Decodes a sequential JPEG at a half, a quarter or an eighth of its size, in the DCT domain.
//!
//! Only the lowest N × N frequencies of every 8 × 8 block are decoded, by an N-point inverse transform (K. R. Rao, P.
//! Yip, "Discrete Cosine Transform", 1990, section 4.2; libjpeg's `scale_num`). Components that the file stores at half
//! the resolution get twice the N, so that nothing has to be interpolated. This saves the time that a full decode
//! spends on pixels that are then discarded. Every bit of the file is still read, so that a missing row is an error.

use std::f32::consts::SQRT_2;
use std::f64::consts::FRAC_PI_2;

use pipeline::Rejection;

use super::entropy_decoder::{BitReader, Decoder, InvalidCode, NATURAL, Tables, decode_block};
use super::markers::{Component, Jpeg, Scan};
use crate::pictures::decode::rejections::corrupt;
use crate::pictures::decode::rgb::Rgb;

/// Turns N × N coefficients of a block into samples at the start of a slice with the given stride.
type Transform = fn(block: &[f32; 64], samples: &mut [u8], stride: usize);

/// How one component is decoded.
struct Plane {
    /// Blocks of one MCU.
    h: usize,
    v: usize,
    /// Samples of one block.
    columns: usize,
    rows: usize,
    /// Multiplier of each coefficient, in zigzag order; 0 for coefficients that are not used.
    factors: [f32; 80],
    /// One more than the index of the last coefficient that is used.
    wanted: usize,
    transform: Transform,
    dc: Decoder,
    ac: Decoder,
    prediction: i32,
    /// Samples of one row of MCUs.
    strip: Vec<u8>,
    stride: usize,
}

/// One decode.
struct ReducedDecode {
    planes: Vec<Plane>,
    mcus_x: usize,
    mcus_y: usize,
    width: usize,
    height: usize,
    /// Output rows of one row of MCUs.
    strip_rows: usize,
}

/// Decodes to `1/divisor` of the size, rounded up. `None` for a kind of file that this decoder does not support:
/// several scans, four components, sampling ratios of more than 2 between components.
pub(super) fn decode(jpeg: &Jpeg<'_>, scans: &[Scan<'_>], divisor: u32) -> Option<Result<Rgb, Rejection>> {
    let [scan] = scans else { return None };
    let reduced = ReducedDecode::plan(jpeg, scan, divisor as usize)?;
    let (data, ends) = unstuff(scan.data);
    Some(reduced.run(&data, &ends, jpeg.restart))
}

impl ReducedDecode {
    fn plan(jpeg: &Jpeg<'_>, scan: &Scan<'_>, divisor: usize) -> Option<Self> {
        let components = &jpeg.frame.components;
        let (count, fields) = scan.header.split_first()?;
        let fields = fields.get(..2 * usize::from(*count))?;
        if usize::from(*count) != components.len() || components.len() == 4 {
            return None;
        }
        // In a scan of one component an MCU is one block, whatever its sampling factors (T.81, A.2.2).
        let grey = components.len() == 1;
        let sampling = |c: &Component| if grey { (1, 1) } else { (usize::from(c.h), usize::from(c.v)) };
        let most_h = components.iter().map(|c| sampling(c).0).max()?;
        let most_v = components.iter().map(|c| sampling(c).1).max()?;
        let (width, height) = (usize::from(jpeg.frame.width), usize::from(jpeg.frame.height));
        let (mcus_x, base) = (width.div_ceil(8 * most_h), 8 / divisor);
        let mut planes = Vec::with_capacity(components.len());
        for (component, field) in components.iter().zip(fields.chunks_exact(2)) {
            let (h, v) = sampling(component);
            let (ratio_x, ratio_y) = (most_h / h, most_v / v);
            // Ratios of 3 and 4 are rare; jpeg-decoder handles them.
            let supported = ratio_x <= 2 && ratio_y <= 2 && ratio_x * h == most_h && ratio_y * v == most_v;
            if field[0] != component.id || !supported {
                return None;
            }
            let dc = Decoder::new(jpeg.dc.get(usize::from(field[1] >> 4))?.as_ref()?)?;
            let ac = Decoder::new(jpeg.ac.get(usize::from(field[1] & 15))?.as_ref()?)?;
            let quant = jpeg.quant[component.quant].as_ref()?;
            planes.push(Plane::new((h, v), (base * ratio_x, base * ratio_y), mcus_x, quant, (dc, ac))?);
        }
        Some(Self {
            planes,
            mcus_x,
            mcus_y: height.div_ceil(8 * most_v),
            width: width.div_ceil(divisor),
            height: height.div_ceil(divisor),
            strip_rows: most_v * base,
        })
    }

    /// `data` holds the bits of the scan, cut by restarts at `ends`, one every `restart` MCUs (0 for none).
    fn run(mut self, data: &[u8], ends: &[usize], restart: usize) -> Result<Rgb, Rejection> {
        let interval = if restart == 0 { usize::MAX } else { restart };
        let mut ends = ends.iter();
        let mut segment = |begin: usize| {
            let end = *ends.next()?;
            Some((BitReader::new(&data[begin..end]), end))
        };
        let mut pixels = vec![0; self.width * self.height * 3];
        let missing = |row: usize, of: usize| corrupt(format!("its data ends in block row {row} of {of}"));
        let (mut bits, mut end) = segment(0).ok_or_else(|| missing(0, self.mcus_y))?;
        let mut left = interval;
        for row in 0..self.mcus_y {
            for column in 0..self.mcus_x {
                if left == 0 {
                    if bits.overrun() {
                        return Err(missing(row, self.mcus_y));
                    }
                    (bits, end) = segment(end).ok_or_else(|| missing(row, self.mcus_y))?;
                    self.planes.iter_mut().for_each(|plane| plane.prediction = 0);
                    left = interval;
                }
                left -= 1;
                let decoded = self.planes.iter_mut().try_for_each(|plane| plane.decode_mcu(&mut bits, column));
                decoded.map_err(|InvalidCode| corrupt(format!("its data is invalid in block row {row}")))?;
            }
            if bits.overrun() {
                return Err(missing(row, self.mcus_y));
            }
            self.convert(row * self.strip_rows, &mut pixels);
        }
        Rgb::new(self.width as u32, self.height as u32, pixels)
    }

    /// Converts the strips to RGB rows, from output row `first` on.
    fn convert(&self, first: usize, pixels: &mut [u8]) {
        let bytes = self.width * 3;
        let rows = self.strip_rows.min(self.height - first);
        for y in 0..rows {
            let out = &mut pixels[(first + y) * bytes..][..bytes];
            match self.planes.as_slice() {
                [luma, blue, red] => colour_row(luma.row(y), blue.row(y), red.row(y), out),
                [luma, ..] => grey_row(luma.row(y), out),
                [] => {}
            }
        }
    }
}

impl Plane {
    /// A plane of `blocks` (across, down) per MCU, each decoded to `samples` (across, down), codes for DC and AC.
    fn new(
        blocks: (usize, usize),
        samples: (usize, usize),
        mcus: usize,
        quant: &[u16; 64],
        codes: (Decoder, Decoder),
    ) -> Option<Self> {
        let (columns, rows) = samples;
        let factors = weights(quant, columns, rows);
        let stride = mcus * blocks.0 * columns;
        Some(Self {
            h: blocks.0,
            v: blocks.1,
            columns,
            rows,
            wanted: factors.iter().rposition(|&factor| factor != 0.0).map_or(1, |last| last + 1),
            factors,
            transform: transform_of(columns, rows)?,
            dc: codes.0,
            ac: codes.1,
            prediction: 0,
            strip: vec![0; stride * blocks.1 * rows],
            stride,
        })
    }

    #[inline(always)]
    fn decode_mcu(&mut self, bits: &mut BitReader<'_>, mcu: usize) -> Result<(), InvalidCode> {
        let tables = Tables { dc: &self.dc, ac: &self.ac, factors: &self.factors, wanted: self.wanted };
        for y in 0..self.v {
            for x in 0..self.h {
                let mut block = [0.0; 64];
                let used = decode_block(bits, &tables, &mut self.prediction, &mut block)?;
                let at = y * self.rows * self.stride + (mcu * self.h + x) * self.columns;
                let samples = &mut self.strip[at..];
                if used == 1 {
                    flat(level(block[0]), samples, self.stride, self.columns, self.rows);
                } else {
                    (self.transform)(&block, samples, self.stride);
                }
            }
        }
        Ok(())
    }

    /// The samples of output row `y` of the strip.
    fn row(&self, y: usize) -> &[u8] {
        &self.strip[y * self.stride..][..self.stride]
    }
}

fn flat(value: u8, samples: &mut [u8], stride: usize, columns: usize, rows: usize) {
    for row in samples.chunks_mut(stride).take(rows) {
        row[..columns].fill(value);
    }
}

/// A sample of `[-128, 127]` as a byte, rounded. Uses the bits of the sum: at 1.5 × 2²³ the spacing of f32 values is 1.
#[inline(always)]
fn level(sample: f32) -> u8 {
    const UNIT_IS_ONE: f32 = 12_582_912.0;
    ((sample + 128.0).clamp(0.0, 255.0) + UNIT_IS_ONE).to_bits() as u8
}

/// Quantisation factors times the weights of the transform, in zigzag order; 0 for frequencies that are not used.
fn weights(quant: &[u16; 64], columns: usize, rows: usize) -> [f32; 80] {
    let mut factors = [0.0; 80];
    let weight = |frequency: usize| if frequency == 0 { 1.0 } else { SQRT_2 };
    for (k, &step) in quant.iter().enumerate() {
        let (row, column) = (usize::from(NATURAL[k]) / 8, usize::from(NATURAL[k]) % 8);
        if row < rows && column < columns {
            factors[k] = f32::from(step) * weight(row) * weight(column) / 8.0;
        }
    }
    factors
}

fn transform_of(columns: usize, rows: usize) -> Option<Transform> {
    Some(match (columns, rows) {
        (1, 1) => inverse::<1, 1>,
        (2, 2) => inverse::<2, 2>,
        (4, 4) => inverse::<4, 4>,
        (8, 8) => inverse::<8, 8>,
        (2, 1) => inverse::<2, 1>,
        (4, 2) => inverse::<4, 2>,
        (8, 4) => inverse::<8, 4>,
        (1, 2) => inverse::<1, 2>,
        (2, 4) => inverse::<2, 4>,
        (4, 8) => inverse::<4, 8>,
        _ => return None,
    })
}

/// `sample[y][x] = Σ block[v][u] cos((2y + 1)vπ / 2Y) cos((2x + 1)uπ / 2X)` over `v < Y`, `u < X`: first down, then
/// across.
fn inverse<const X: usize, const Y: usize>(block: &[f32; 64], samples: &mut [u8], stride: usize) {
    let down = const { basis::<Y>() };
    let across = const { basis::<X>() };
    let mut rows = [[0.0_f32; X]; Y];
    for (frequencies, coefficients) in down.iter().zip(block.chunks_exact(8)) {
        for (row, cosine) in rows.iter_mut().zip(frequencies) {
            for (sum, coefficient) in row.iter_mut().zip(coefficients) {
                *sum += cosine * coefficient;
            }
        }
    }
    for (y, row) in rows.iter().enumerate() {
        let mut sums = [0.0_f32; X];
        for (frequencies, amplitude) in across.iter().zip(row) {
            for (sum, cosine) in sums.iter_mut().zip(frequencies) {
                *sum += cosine * amplitude;
            }
        }
        for (sample, sum) in samples[y * stride..][..X].iter_mut().zip(sums) {
            *sample = level(sum);
        }
    }
}

/// `basis[u][x] = cos((2x + 1)uπ / 2N)`.
const fn basis<const N: usize>() -> [[f32; N]; N] {
    let mut basis = [[0.0; N]; N];
    let mut u = 0;
    while u < N {
        let mut x = 0;
        while x < N {
            basis[u][x] = cosine((2 * x + 1) * u, N);
            x += 1;
        }
        u += 1;
    }
    basis
}

/// `cos(steps × π / 2n)` for `n` up to 8, exact in f32: a series of ten terms on the first quarter of the circle.
const fn cosine(steps: usize, n: usize) -> f32 {
    let around = steps % (4 * n);
    let folded = if around > 2 * n { 4 * n - around } else { around };
    let (quarter, sign) = if folded > n { (2 * n - folded, -1.0) } else { (folded, 1.0) };
    let angle = quarter as f64 * FRAC_PI_2 / n as f64;
    let (mut term, mut sum, mut i) = (1.0, 1.0, 1);
    while i < 10 {
        term *= -angle * angle / ((2 * i - 1) * (2 * i)) as f64;
        sum += term;
        i += 1;
    }
    (sign * sum) as f32
}

/// Full-range YCbCr to RGB (JFIF 1.02, page 3), in 16 bits of fraction.
fn colour_row(luma: &[u8], blue: &[u8], red: &[u8], out: &mut [u8]) {
    for (((pixel, y), cb), cr) in out.chunks_exact_mut(3).zip(luma).zip(blue).zip(red) {
        let (y, cb, cr) = ((i32::from(*y) << 16) + (1 << 15), i32::from(*cb) - 128, i32::from(*cr) - 128);
        pixel[0] = ((y + 91_881 * cr) >> 16).clamp(0, 255) as u8;
        pixel[1] = ((y - 22_554 * cb - 46_802 * cr) >> 16).clamp(0, 255) as u8;
        pixel[2] = ((y + 116_130 * cb) >> 16).clamp(0, 255) as u8;
    }
}

fn grey_row(luma: &[u8], out: &mut [u8]) {
    for (pixel, y) in out.chunks_exact_mut(3).zip(luma) {
        pixel.fill(*y);
    }
}

/// Removes byte stuffing and markers; also returns where each restart segment ends in the result.
fn unstuff(data: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::with_capacity(data.len());
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(found) = memchr::memchr(0xff, &data[at..]) {
        let escape = at + found;
        bytes.extend_from_slice(&data[at..escape]);
        match data.get(escape + 1) {
            Some(0x00) => bytes.push(0xff),
            // Fill bytes before a marker: the last one is part of the marker.
            Some(0xff) | None => {
                at = escape + 1;
                continue;
            }
            Some(_) => ends.push(bytes.len()),
        }
        at = escape + 2;
    }
    bytes.extend_from_slice(&data[at..]);
    ends.push(bytes.len());
    (bytes, ends)
}
