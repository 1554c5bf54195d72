//! Document formats, and which can be converted into which.

use serde::{Deserialize, Serialize};

/// A document format, named in configs and requests by its usual file extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Office Open XML text.
    Docx,
    /// OpenDocument text.
    Odt,
    /// Rich Text Format.
    Rtf,
    /// HTML, read as a text document.
    Html,
    /// Plain text in UTF-8.
    Txt,
    /// Office Open XML spreadsheet.
    Xlsx,
    /// OpenDocument spreadsheet.
    Ods,
    /// Comma-separated values in UTF-8; written: the first sheet.
    Csv,
    /// Office Open XML presentation.
    Pptx,
    /// OpenDocument presentation.
    Odp,
    /// Portable Document Format.
    Pdf,
    /// An image per page; output only.
    Png,
}

/// Kinds of documents: a document converts within its family, and to pages or images of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Running text.
    Text,
    /// Sheets of cells.
    Sheets,
    /// Slides.
    Slides,
    /// Finished pages.
    Pages,
}

impl Format {
    /// Every format, in the order of the documentation.
    pub const ALL: [Self; 12] = [
        Self::Docx,
        Self::Odt,
        Self::Rtf,
        Self::Html,
        Self::Txt,
        Self::Xlsx,
        Self::Ods,
        Self::Csv,
        Self::Pptx,
        Self::Odp,
        Self::Pdf,
        Self::Png,
    ];

    /// The file extension, without a dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Docx => "docx",
            Self::Odt => "odt",
            Self::Rtf => "rtf",
            Self::Html => "html",
            Self::Txt => "txt",
            Self::Xlsx => "xlsx",
            Self::Ods => "ods",
            Self::Csv => "csv",
            Self::Pptx => "pptx",
            Self::Odp => "odp",
            Self::Pdf => "pdf",
            Self::Png => "png",
        }
    }

    /// The registered media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Self::Odt => "application/vnd.oasis.opendocument.text",
            Self::Rtf => "application/rtf",
            Self::Html => "text/html",
            Self::Txt => "text/plain",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            Self::Ods => "application/vnd.oasis.opendocument.spreadsheet",
            Self::Csv => "text/csv",
            Self::Pptx => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
            Self::Odp => "application/vnd.oasis.opendocument.presentation",
            Self::Pdf => "application/pdf",
            Self::Png => "image/png",
        }
    }

    /// The format with this extension, in any case; `htm` is HTML.
    #[must_use]
    pub fn from_extension(extension: &str) -> Option<Self> {
        let extension = extension.to_ascii_lowercase();
        let extension = if extension == "htm" { "html" } else { &extension };
        Self::ALL.into_iter().find(|format| format.extension() == extension)
    }

    /// The family of the format.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::Docx | Self::Odt | Self::Rtf | Self::Html | Self::Txt => Family::Text,
            Self::Xlsx | Self::Ods | Self::Csv => Family::Sheets,
            Self::Pptx | Self::Odp => Family::Slides,
            Self::Pdf | Self::Png => Family::Pages,
        }
    }

    /// Whether a document of this format can be converted to `target`.
    ///
    /// Every input format converts to pages and to the formats of its own family; sheets and slides convert to HTML too. A
    /// PDF converts to images.
    #[must_use]
    pub fn becomes(self, target: Self) -> bool {
        match (self.family(), target.family()) {
            (Family::Pages, _) => self == Self::Pdf && target == Self::Png,
            (_, Family::Pages) => true,
            (from, to) => from == to || target == Self::Html,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.extension())
    }
}

/// The usual extension of a file of this media type; `bin` if it is not known.
#[must_use]
pub fn file_extension(media_type: &str) -> &'static str {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let document = || Format::ALL.into_iter().find(|format| format.media_type() == essence).map(Format::extension);
    match essence.as_str() {
        "application/json" => "json",
        "application/zip" => "zip",
        "image/gif" => "gif",
        "image/jpeg" => "jpg",
        "image/webp" => "webp",
        _ => document().unwrap_or("bin"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_extension_of_its_type() {
        for (media_type, expected) in [
            ("application/pdf", "pdf"),
            ("Text/HTML; charset=utf-8", "html"),
            ("application/zip", "zip"),
            ("image/jpeg", "jpg"),
            ("application/vnd.oasis.opendocument.text", "odt"),
            ("application/x-unknown", "bin"),
            ("", "bin"),
        ] {
            assert_eq!(file_extension(media_type), expected, "{media_type}");
        }
    }

    #[test]
    fn a_format_is_found_by_its_extension() {
        for format in Format::ALL {
            assert_eq!(Format::from_extension(format.extension()), Some(format));
        }
        assert_eq!(Format::from_extension("HTM"), Some(Format::Html));
        assert_eq!(Format::from_extension("exe"), None);
    }

    #[test]
    fn families_do_not_mix() {
        assert!(Format::Docx.becomes(Format::Odt));
        assert!(Format::Csv.becomes(Format::Pdf));
        assert!(!Format::Csv.becomes(Format::Docx));
        assert!(!Format::Odp.becomes(Format::Xlsx));
        assert!(Format::Pdf.becomes(Format::Png) && !Format::Pdf.becomes(Format::Docx));
    }
}
