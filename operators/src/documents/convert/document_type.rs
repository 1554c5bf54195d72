//! Detects the format of a document by its content, and scans it before the converter opens it.

use bytes::Bytes;
use pipeline::Rejection;
use pipeline::documents::Format;

use super::parameters::AcceptedTypes;
use crate::documents::office::{Kind, Limits, scan};

/// A document that passed the scan.
pub(super) struct Document {
    pub(super) bytes: Bytes,
    pub(super) format: Format,
    /// Its file name without the extension.
    pub(super) stem: String,
}

/// Detects the format of a document and rejects content that the converter must not open.
pub(super) fn inspect(bytes: Bytes, name: &str, accepts: AcceptedTypes) -> Result<Document, Rejection> {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let named = Format::from_extension(extension);
    let scanned = scan(&bytes, accepts.kinds(), &Limits::default()).map_err(|why| match name {
        "" => why,
        name => Rejection { detail: format!("{name:?}: {}", why.detail), ..why },
    })?;
    let format = format_of(scanned.kind, named).ok_or_else(|| {
        Rejection::unsupported("document_type", format!("documents of type {} cannot be converted", scanned.kind))
    })?;
    let stem = if stem.is_empty() { "document" } else { stem };
    Ok(Document { bytes, format, stem: stem.to_owned() })
}

/// The format of a detected type. For plain text the file name decides, since its content is ambiguous; for a
/// password-protected document only the name is available.
fn format_of(kind: Kind, named: Option<Format>) -> Option<Format> {
    let text = named.filter(|format| matches!(format, Format::Csv | Format::Txt | Format::Html));
    Some(match kind {
        Kind::Docx => Format::Docx,
        Kind::Xlsx => Format::Xlsx,
        Kind::Pptx => Format::Pptx,
        Kind::Odt => Format::Odt,
        Kind::Ods => Format::Ods,
        Kind::Odp => Format::Odp,
        Kind::Rtf => Format::Rtf,
        Kind::Pdf => Format::Pdf,
        Kind::Html => text.unwrap_or(Format::Html),
        Kind::Csv => text.unwrap_or(Format::Csv),
        Kind::Txt => text.unwrap_or(Format::Txt),
        Kind::EncryptedOoxml => {
            named.filter(|format| matches!(format, Format::Docx | Format::Xlsx | Format::Pptx)).unwrap_or(Format::Docx)
        }
        _ => return None,
    })
}
