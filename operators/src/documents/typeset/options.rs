//! Options of a template: limits, and the PDF standard of its documents.

use std::time::Duration;

use serde::Deserialize;
use typst_pdf::PdfStandard;

/// Limits and options of a template.
#[derive(Clone, Debug)]
pub struct Options {
    /// Largest template, in bytes.
    pub template: usize,
    /// Largest document, in bytes.
    pub output: usize,
    /// Most pages of a document.
    pub pages: usize,
    /// Loop iterations and function calls of the template, per document.
    pub steps: u64,
    /// Time per document.
    pub time: Duration,
    /// The default PDF standard.
    pub standard: Standard,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            template: 1 << 20,
            output: 50 << 20,
            pages: 500,
            // About 50 000 rows, more than fit on the pages. typst takes up to 10 KB and 50 µs for the output of one
            // step.
            steps: 200_000,
            time: Duration::from_secs(10),
            standard: Standard::default(),
        }
    }
}

/// A PDF standard that documents conform to; typst rejects content that would violate it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Standard {
    /// PDF 1.7, tagged.
    #[default]
    #[serde(rename = "pdf")]
    Pdf,
    /// PDF/A-2b, for archives. The template must set `document(date: …)`.
    #[serde(rename = "pdf/a-2b")]
    A2b,
    /// PDF/A-3b, for archives, with attachments. The template must set `document(date: …)`.
    #[serde(rename = "pdf/a-3b")]
    A3b,
    /// PDF/UA-1, accessible. The template must set `document(title: …)`, and `alt` of images.
    #[serde(rename = "pdf/ua-1")]
    Ua1,
}

impl Standard {
    pub(super) fn list(self) -> &'static [PdfStandard] {
        match self {
            Self::Pdf => &[],
            Self::A2b => &[PdfStandard::A_2b],
            Self::A3b => &[PdfStandard::A_3b],
            Self::Ua1 => &[PdfStandard::Ua_1],
        }
    }
}
