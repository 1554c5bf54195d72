//! Huffman decoder for a sequential JPEG scan (T.81, annex F.2.2): decodes the coefficients that are used, skips the
//! rest.
//!
//! Byte stuffing is removed beforehand, so that refilling is one load of eight bytes. One table look-up of
//! [`LOOKUP_BITS`] bits gives code, run and value at once for nearly every coefficient (after S. Barrett's stb_image).
//! Past the last used coefficient of a block, one look-up skips as many coefficients as fit into it. Reading past the
//! end of the data gives zeros; callers check [`BitReader::overrun`].

use super::markers::HuffmanTable;

/// Bits resolved by one look-up: enough for 98 of 100 AC coefficients of a photo, and two tables of 8 KiB fit in the L1
/// cache.
const LOOKUP_BITS: u32 = 11;

/// Reads bits, most significant first.
pub(super) struct BitReader<'d> {
    data: &'d [u8],
    /// Bytes loaded into `buffer`, possibly past the end.
    taken: usize,
    /// The next bits, at the most significant end.
    buffer: u64,
    /// Number of valid bits in `buffer`.
    count: u32,
}

impl<'d> BitReader<'d> {
    pub(super) fn new(data: &'d [u8]) -> Self {
        Self { data, taken: 0, buffer: 0, count: 0 }
    }

    /// Ensures at least 32 bits: the longest code and its value.
    #[inline(always)]
    fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        let next = match self.data.get(self.taken..self.taken + 8) {
            Some(bytes) => u64::from_be_bytes(bytes.try_into().expect("the slice has eight bytes")),
            None => self.last_bytes(),
        };
        self.buffer |= next >> self.count;
        let bytes = (63 - self.count) >> 3;
        self.taken += bytes as usize;
        self.count += bytes << 3;
    }

    #[cold]
    fn last_bytes(&self) -> u64 {
        let mut padded = [0; 8];
        let rest = self.data.get(self.taken..).unwrap_or_default();
        padded[..rest.len()].copy_from_slice(rest);
        u64::from_be_bytes(padded)
    }

    #[inline(always)]
    fn peek(&self, bits: u32) -> usize {
        (self.buffer >> (64 - bits)) as usize
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// Reads the `size` bits of a value and extends its sign (T.81, F.12). `size` is 1 to 15.
    #[inline(always)]
    fn value(&mut self, size: u32) -> i32 {
        let raw = self.peek(size) as i32;
        self.skip(size);
        extend(raw, size)
    }

    /// Whether more bits were read than the data has.
    pub(super) fn overrun(&self) -> bool {
        (self.taken * 8).saturating_sub(self.count as usize) > self.data.len() * 8
    }
}

#[inline(always)]
fn extend(raw: i32, size: u32) -> i32 {
    if raw < 1 << (size - 1) { raw - (1 << size) + 1 } else { raw }
}

/// Look-up tables of one Huffman code.
pub(super) struct Decoder {
    /// By the next [`LOOKUP_BITS`] bits: value in bits 16 to 31, run in 8 to 15, bits used in 0 to 7 where code and
    /// value both fit; else 0.
    coefficients: Vec<u32>,
    /// By the next [`LOOKUP_BITS`] bits: the number of bits (in 0 to 7) of all coefficients that fit whole, how many
    /// zigzag positions (in 8 to 15) they advance, and whether the block ends after them (16); 0 if none fits.
    skips: Vec<u32>,
    /// By the next [`LOOKUP_BITS`] bits: symbol in bits 8 to 15, code length in 0 to 7 where the code fits; else 0.
    symbols: Vec<u16>,
    /// The first 16-bit pattern above every code of a length (index 1 to 16).
    ceilings: [u32; 17],
    /// What to add to a code of a length to get the index of its symbol.
    offsets: [i32; 17],
    values: Vec<u8>,
}

/// A bit pattern that is not a valid code.
pub(super) struct InvalidCode;

impl Decoder {
    /// Builds the tables (T.81, annex C). `None` if the counts do not form a prefix code.
    pub(super) fn new(code: &HuffmanTable<'_>) -> Option<Self> {
        let mut decoder = Self {
            coefficients: vec![0; 1 << LOOKUP_BITS],
            skips: vec![0; 1 << LOOKUP_BITS],
            symbols: vec![0; 1 << LOOKUP_BITS],
            ceilings: [0; 17],
            offsets: [0; 17],
            values: code.symbols.to_vec(),
        };
        let mut next_code: u32 = 0;
        let mut index = 0;
        for length in 1..=16_u32 {
            let count = u32::from(code.counts[length as usize - 1]);
            if next_code + count > 1 << length {
                return None;
            }
            decoder.offsets[length as usize] = index as i32 - next_code as i32;
            for pattern in next_code..next_code + count {
                if length <= LOOKUP_BITS {
                    decoder.enter(pattern, length, *code.symbols.get(index)?);
                }
                index += 1;
            }
            next_code += count;
            decoder.ceilings[length as usize] = next_code << (16 - length);
            next_code <<= 1;
        }
        for place in 0..1 << LOOKUP_BITS {
            decoder.skips[place as usize] = decoder.skip_entry(place);
        }
        Some(decoder)
    }

    /// The entry of `skips` for one pattern.
    fn skip_entry(&self, pattern: u32) -> u32 {
        let (mut used, mut places) = (0, 0);
        while used < LOOKUP_BITS {
            let rest = (pattern << used) & ((1 << LOOKUP_BITS) - 1);
            let symbol = u32::from(self.symbols[rest as usize]);
            let (length, run, size) = (symbol & 0xff, symbol >> 12, symbol >> 8 & 15);
            if symbol == 0 || used + length + size > LOOKUP_BITS {
                break;
            }
            used += length + size;
            if size == 0 && run != 15 {
                return 1 << 16 | places << 8 | used;
            }
            places += run + 1;
        }
        places << 8 | used
    }

    /// Fills every entry of the look-up tables whose index begins with `pattern`.
    fn enter(&mut self, pattern: u32, length: u32, symbol: u8) {
        let free = LOOKUP_BITS - length;
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        for rest in 0..1_u32 << free {
            let place = ((pattern << free) | rest) as usize;
            self.symbols[place] = u16::from(symbol) << 8 | length as u16;
            if size > 0 && size <= free {
                let value = extend((rest >> (free - size)) as i32, size);
                self.coefficients[place] = (value as u32) << 16 | run << 8 | (length + size);
            }
        }
    }

    /// The next symbol. At least 16 bits must be buffered.
    #[inline(always)]
    fn symbol(&self, bits: &mut BitReader<'_>) -> Result<u8, InvalidCode> {
        let entry = self.symbols[bits.peek(LOOKUP_BITS)];
        if entry != 0 {
            bits.skip(u32::from(entry & 0xff));
            return Ok((entry >> 8) as u8);
        }
        self.long_symbol(bits)
    }

    /// Reads the code and value of the next coefficient separately, and advances `k` to its position. `None` at the end
    /// of the block.
    fn long_coefficient(&self, bits: &mut BitReader<'_>, k: &mut usize) -> Result<Option<i32>, InvalidCode> {
        loop {
            let symbol = self.symbol(bits)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size > 0 {
                *k += run;
                return if *k < 64 { Ok(Some(bits.value(size))) } else { Err(InvalidCode) };
            }
            if run != 15 {
                return Ok(None);
            }
            *k += 16;
            if *k > 63 {
                return Err(InvalidCode);
            }
            bits.refill();
        }
    }

    #[cold]
    fn long_symbol(&self, bits: &mut BitReader<'_>) -> Result<u8, InvalidCode> {
        let pattern = bits.peek(16) as u32;
        for length in LOOKUP_BITS + 1..=16 {
            if pattern < self.ceilings[length as usize] {
                bits.skip(length);
                let index = (pattern >> (16 - length)) as i32 + self.offsets[length as usize];
                return usize::try_from(index)
                    .ok()
                    .and_then(|index| self.values.get(index).copied())
                    .ok_or(InvalidCode);
            }
        }
        Err(InvalidCode)
    }
}

/// Natural position (row × 8 + column) of the k-th coefficient in zigzag order (T.81, figure 5). The 16 extra entries
/// catch runs past the end.
pub(super) const NATURAL: [u8; 80] = {
    let mut order = [63; 80];
    let (mut row, mut column, mut k) = (0_i32, 0_i32, 0);
    while k < 64 {
        order[k] = (row * 8 + column) as u8;
        let up = (row + column) % 2 == 0;
        // At an edge the diagonal turns, along that edge.
        (row, column) = match (up, row, column) {
            (true, _, 7) | (false, 0..7, 0) => (row + 1, column),
            (true, 0, _) | (false, 7, _) => (row, column + 1),
            (true, ..) => (row - 1, column + 1),
            (false, ..) => (row + 1, column - 1),
        };
        k += 1;
    }
    order
};

/// The tables of one component.
pub(super) struct Tables<'t> {
    pub(super) dc: &'t Decoder,
    pub(super) ac: &'t Decoder,
    /// Factor of the k-th coefficient in zigzag order; 0 for coefficients that are not used.
    pub(super) factors: &'t [f32; 80],
    /// One more than the index of the last coefficient that is used.
    pub(super) wanted: usize,
}

/// Decodes one block. Sets the used coefficients of `block` (natural order, zeroed by the caller) and returns how many
/// of them, in zigzag order, may differ from zero.
///
/// # Errors
/// If a code is invalid or a value is out of range. Reading past the end of the data is not an error here.
#[inline(always)]
pub(super) fn decode_block(
    bits: &mut BitReader<'_>,
    tables: &Tables<'_>,
    prediction: &mut i32,
    block: &mut [f32; 64],
) -> Result<usize, InvalidCode> {
    bits.refill();
    let size = u32::from(tables.dc.symbol(bits)?);
    if size > 11 {
        return Err(InvalidCode);
    }
    if size > 0 {
        *prediction = prediction.wrapping_add(bits.value(size));
    }
    block[0] = *prediction as f32 * tables.factors[0];

    let mut k = 1;
    let mut used = 1;
    while k < tables.wanted {
        bits.refill();
        let entry = tables.ac.coefficients[bits.peek(LOOKUP_BITS)];
        let value;
        if entry != 0 {
            bits.skip(entry & 0xff);
            k += (entry >> 8 & 0xff) as usize;
            value = (entry as i32) >> 16;
        } else {
            match tables.ac.long_coefficient(bits, &mut k)? {
                Some(long) => value = long,
                None => return Ok(used),
            }
        }
        let factor = *tables.factors.get(k).ok_or(InvalidCode)?;
        if factor != 0.0 {
            block[usize::from(NATURAL[k]) & 63] = value as f32 * factor;
            used = k + 1;
        }
        k += 1;
    }
    skip_rest(bits, tables.ac, k)?;
    Ok(used)
}

/// Skips to the end of a block whose next coefficient is the `k`-th.
#[inline(always)]
fn skip_rest(bits: &mut BitReader<'_>, ac: &Decoder, mut k: usize) -> Result<(), InvalidCode> {
    while k < 64 {
        bits.refill();
        let entry = ac.skips[bits.peek(LOOKUP_BITS)];
        let places = (entry >> 8 & 0xff) as usize;
        // A full block ends without an end-of-block code, so its last coefficients are read one by one.
        if entry != 0 && k + places < 64 {
            bits.skip(entry & 0xff);
            if entry >> 16 != 0 {
                return Ok(());
            }
            k += places;
            continue;
        }
        if ac.long_coefficient(bits, &mut k)?.is_none() {
            return Ok(());
        }
        k += 1;
    }
    if k == 64 { Ok(()) } else { Err(InvalidCode) }
}
