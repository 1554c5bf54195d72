//! Office packages: opening them within bounds, telling what they are, refusing what a document engine must not see.
//!
//! Everything here computes; nothing opens a file, a socket or LibreOffice. [`scan`](scan()) is the gate of reliability
//! rows D1 and D3 to D7: a package that passes is one that inflates within [`Limits`], means the same to every reader, is
//! of a type that was asked for, and holds nothing that reaches outside of itself or runs. It is one layer: whoever
//! converts puts a sandbox around the engine all the same.

mod inflate;
mod package;
#[cfg(test)]
pub(crate) mod samples;
mod scan;
mod sniff;
mod write;
pub mod xml;
mod zip;

use pipeline::spec::ByteSize;

pub use inflate::Budget;
pub use package::Package;
pub use scan::{Scanned, scan};
pub use sniff::{Kind, sniff};
pub use write::Writer;
pub use zip::Entry;

/// Bounds of one document. The defaults are those of the design; a real document of a thousand pages is within them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The file as it comes.
    pub file: ByteSize,
    /// All parts, inflated.
    pub total: ByteSize,
    /// One part, inflated.
    pub part: ByteSize,
    /// Entries of the package.
    pub parts: usize,
    /// Inflated bytes per compressed byte of a part that is longer than `ratio_from`.
    pub ratio: u64,
    /// Where the ratio begins to count: a short part of one letter repeated is no bomb.
    pub ratio_from: ByteSize,
    /// Elements within elements.
    pub depth: usize,
    /// Characters between two tags, in bytes: an engine lays out one such run for minutes.
    pub run: ByteSize,
    /// Paragraphs of one part.
    pub paragraphs: usize,
    /// Cells of all tables, or of all sheets, of one part.
    pub cells: usize,
    /// Pixels of one picture.
    pub pixels: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file: ByteSize::mib(32),
            total: ByteSize::mib(64),
            part: ByteSize::mib(16),
            parts: 2_000,
            ratio: 100,
            ratio_from: ByteSize::mib(1),
            depth: 256,
            run: ByteSize::mib(1),
            paragraphs: 100_000,
            cells: 200_000,
            pixels: 50_000_000,
        }
    }
}
