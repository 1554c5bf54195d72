//! Limits of an office document: sizes, inflation ratio, nesting, and elements that are slow to lay out.

use pipeline::spec::ByteSize;

/// Limits of one document. A real document of a thousand pages is within the defaults.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The file as received.
    pub file: ByteSize,
    /// All parts, inflated.
    pub total: ByteSize,
    /// One part, inflated.
    pub part: ByteSize,
    /// Number of parts in the package.
    pub parts: usize,
    /// Inflated bytes per compressed byte of a part that is longer than `ratio_from`.
    pub ratio: u64,
    /// Length from which the ratio applies: a short part of one repeated letter is harmless.
    pub ratio_from: ByteSize,
    /// Nesting depth of XML elements.
    pub depth: usize,
    /// Text between two tags, in bytes: LibreOffice takes minutes to lay out one long run.
    pub run: ByteSize,
    /// Paragraphs in one part.
    pub paragraphs: usize,
    /// Cells of all tables, or of all sheets, in one part.
    pub cells: usize,
    /// Pixels of one image.
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
