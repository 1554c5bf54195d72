//! Office packages: reads them within limits, detects their type, rejects content that a document converter must not
//! open.
//!
//! Everything here only computes; nothing opens a file, a socket or LibreOffice. A package that passes [`scan`](scan())
//! inflates within [`Limits`], reads the same in every program, is of an expected type, and contains nothing that
//! refers to the outside or runs. The scan is one layer of several: the converter runs in a sandbox nevertheless.

mod inflate;
mod limits;
mod package;
mod scan;
mod sniff;
#[cfg(test)]
pub(crate) mod test_documents;
pub mod xml;
mod zip_reader;
mod zip_writer;

pub use inflate::Budget;
pub use limits::Limits;
pub use package::Package;
pub use scan::{ScannedDocument, scan};
pub use sniff::{Kind, sniff};
pub use zip_reader::Entry;
pub use zip_writer::Writer;
