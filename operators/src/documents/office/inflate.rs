//! Inflates the entries of a package within a budget (ZIP bomb protection): every byte is counted as it is inflated.

use flate2::{Decompress, FlushDecompress, Status};
use pipeline::Rejection;
use pipeline::spec::ByteSize;

use super::limits::Limits;
use super::zip_reader::{Entry, Method, corrupt};

/// Bytes inflated at once: nothing larger is allocated before it is counted.
const BLOCK: usize = 32 << 10;

/// How much a package may still inflate to.
#[derive(Clone, Debug)]
pub struct Budget {
    total: u64,
    left: u64,
    part: u64,
    ratio: u64,
    ratio_from: u64,
}

impl Budget {
    /// The full budget that `limits` allow for one package.
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        let total = limits.total.0;
        Self { total, left: total, part: limits.part.0, ratio: limits.ratio, ratio_from: limits.ratio_from.0 }
    }

    /// Spends `more` bytes on a part that has `out` bytes so far, from `packed` compressed ones.
    fn take(&mut self, name: &str, more: u64, out: u64, packed: u64) -> Result<(), Rejection> {
        let bomb = |code, what: String| {
            let remedy = "make the images and embedded data smaller";
            Rejection::unusable(code, format!("part {name:?} {what}; {remedy}"))
        };
        if out > self.part {
            return Err(bomb("part_too_large", format!("inflates to more than {}", ByteSize(self.part))));
        }
        if out > self.ratio_from && out / self.ratio > packed {
            let what = format!("inflates {packed} bytes to more than {} times as many", self.ratio);
            return Err(bomb("package_bomb", what));
        }
        self.left = self.left.checked_sub(more).ok_or_else(|| {
            bomb("package_too_large", format!("makes the package inflate to more than {}", ByteSize(self.total)))
        })?;
        Ok(())
    }
}

/// Passes the content of an entry to `sink`, block by block, within the budget. Length and checksum must match.
pub(super) fn inflate(
    package: &[u8],
    entry: &Entry,
    budget: &mut Budget,
    mut sink: impl FnMut(&[u8]),
) -> Result<(), Rejection> {
    let data = &package[entry.data.clone()];
    let packed = data.len() as u64;
    let (mut out, mut crc) = (0_u64, crc32fast::Hasher::new());
    let mut take = |block: &[u8]| -> Result<(), Rejection> {
        out += block.len() as u64;
        budget.take(&entry.name, block.len() as u64, out, packed)?;
        crc.update(block);
        sink(block);
        Ok(())
    };
    match entry.method {
        Method::Stored => data.chunks(BLOCK).try_for_each(&mut take)?,
        Method::Deflate => deflated(data, &entry.name, &mut take)?,
    }
    if out != u64::from(entry.size) || crc.finalize() != entry.crc {
        return Err(corrupt(format_args!(
            "part {:?} does not match its length and checksum in the directory",
            entry.name
        )));
    }
    Ok(())
}

fn deflated(data: &[u8], name: &str, take: &mut impl FnMut(&[u8]) -> Result<(), Rejection>) -> Result<(), Rejection> {
    let broken = || corrupt(format_args!("part {name:?} cannot be inflated"));
    let mut inflater = Decompress::new(false);
    let mut block = vec![0; BLOCK];
    loop {
        let (read, written) = (inflater.total_in(), inflater.total_out());
        let rest = &data[usize::try_from(read).unwrap_or(data.len()).min(data.len())..];
        let status = inflater.decompress(rest, &mut block, FlushDecompress::None).map_err(|_| broken())?;
        let fresh = usize::try_from(inflater.total_out() - written).unwrap_or(0);
        take(&block[..fresh])?;
        match status {
            Status::StreamEnd if inflater.total_in() == data.len() as u64 => return Ok(()),
            Status::StreamEnd => return Err(broken()),
            _ if fresh == 0 && inflater.total_in() == read => return Err(broken()),
            _ => {}
        }
    }
}
