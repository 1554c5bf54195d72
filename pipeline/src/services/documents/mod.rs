//! Documents: their formats, the options of a conversion, and the converter as a trait.

mod converter;
mod error;
mod finish;
mod format;
mod options;

pub use converter::{Conversion, Converted, Converter};
pub use error::ConvertError;
pub use finish::{Entry, Finish, Finishing, LONGEST_PASSWORD, Lock, Named, Split};
pub use format::{Family, Format, file_extension};
pub use options::{InvalidOption, Options, PdfVersion, Setting, page_ranges};
