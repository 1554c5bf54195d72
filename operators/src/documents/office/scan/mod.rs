//! The pre-scan: rejects content that a document converter must not open, before the converter opens the document.
//!
//! Every part is inflated once, counted and read. Rules match the local names of elements and attributes, because the
//! author chooses the prefixes. A package that could be read both as OOXML and as OpenDocument is rejected: one reader
//! would follow links that the other did not check.

mod elements;
mod field_codes;
mod link_scheme;
mod rejection;
mod relationships;
mod scanner;
#[cfg(test)]
mod tests;

pub use scanner::{ScannedDocument, scan};
