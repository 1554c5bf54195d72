//! Options of a conversion beside the format, checked before LibreOffice gets them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::format::{Family, Format};

/// Longest list of pages, watermark or password, in bytes.
const LONGEST_TEXT: usize = 256;

/// Options of one conversion; all of them may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// PDF/A; without it PDF 1.6, the only other version that LibreOffice writes.
    pub pdf_version: Option<PdfVersion>,
    /// Accessible PDF (PDF/UA-1): tagged, with a title.
    pub pdf_ua: bool,
    /// Pages, for example `1-3,5`; all without it. For PDF and PNG.
    pub pages: Option<String>,
    /// Password of an encrypted input.
    pub password: Option<String>,
    /// Text across every page of a PDF.
    pub watermark: Option<String>,
    /// JPEG quality of images in a PDF, 1 to 100; 90 without it.
    pub image_quality: Option<u8>,
    /// Most dots per inch of images in a PDF: 75, 150, 300, 600 or 1200.
    pub image_dpi: Option<u16>,
    /// Leaves the images of a PDF as they are.
    pub image_lossless: bool,
    /// Updates tables of contents and other indexes first. For text documents.
    pub update_indexes: bool,
    /// Sets the pages of a text document to landscape.
    pub landscape: bool,
    /// Width of PNG pages in pixels, 16 to 4096; 1240 without it.
    pub png_width: Option<u16>,
    /// Settings of the PDF export by LibreOffice's names, for example `ExportNotes`.
    pub settings: BTreeMap<String, Setting>,
}

/// The value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// On or off.
    Switch(bool),
    /// A number, or the number of a choice.
    Number(i32),
}

/// Versions of PDF/A. PDF/A-1 is missing because LibreOffice then declares a higher conformance level than requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PdfVersion {
    /// PDF/A-2b, for archives.
    #[serde(rename = "a2b")]
    A2b,
    /// PDF/A-3b, for archives, with attachments.
    #[serde(rename = "a3b")]
    A3b,
}

/// An option that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {why}")]
pub struct InvalidOption {
    /// Key of the option.
    pub option: &'static str,
    /// What is wrong, with the limit, and what to do.
    pub why: String,
}

fn invalid(option: &'static str, why: impl Into<String>) -> InvalidOption {
    InvalidOption { option, why: why.into() }
}

impl Options {
    /// Checks every value, and that each option applies to this pair of formats.
    ///
    /// # Errors
    /// The first option that is out of bounds or does not apply.
    pub fn check(&self, from: Format, to: Format) -> Result<(), InvalidOption> {
        self.check_values()?;
        self.check_fit(from, to)
    }

    fn check_values(&self) -> Result<(), InvalidOption> {
        let texts = [("pages", &self.pages), ("password", &self.password), ("watermark", &self.watermark)];
        for (name, text) in texts {
            let Some(text) = text else { continue };
            if text.is_empty() || text.len() > LONGEST_TEXT || text.chars().any(char::is_control) {
                return Err(invalid(name, format!("takes 1 to {LONGEST_TEXT} bytes without control characters")));
            }
        }
        if let Some(pages) = &self.pages {
            page_ranges(pages)?;
        }
        if self.image_quality.is_some_and(|quality| !(1..=100).contains(&quality)) {
            return Err(invalid("image_quality", "takes 1 to 100"));
        }
        if self.image_dpi.is_some_and(|dpi| ![75, 150, 300, 600, 1200].contains(&dpi)) {
            return Err(invalid("image_dpi", "takes 75, 150, 300, 600 or 1200"));
        }
        if self.png_width.is_some_and(|width| !(16..=4096).contains(&width)) {
            return Err(invalid("png_width", "takes 16 to 4096"));
        }
        Ok(())
    }

    fn check_fit(&self, from: Format, to: Format) -> Result<(), InvalidOption> {
        let only_pdf = [
            ("pdf_version", self.pdf_version.is_some()),
            ("pdf_ua", self.pdf_ua),
            ("settings", !self.settings.is_empty()),
            ("watermark", self.watermark.is_some()),
            ("image_quality", self.image_quality.is_some()),
            ("image_dpi", self.image_dpi.is_some()),
            ("image_lossless", self.image_lossless),
        ];
        if let Some((name, _)) = only_pdf.into_iter().find(|(_, set)| *set && to != Format::Pdf) {
            return Err(invalid(name, format!("is for PDF, not for {to}")));
        }
        if self.pages.is_some() && to.family() != Family::Pages {
            return Err(invalid("pages", format!("is for PDF and PNG, not for {to}")));
        }
        if self.png_width.is_some() && to != Format::Png {
            return Err(invalid("png_width", format!("is for PNG, not for {to}")));
        }
        if from.family() != Family::Text && (self.update_indexes || self.landscape) {
            let name = if self.update_indexes { "update_indexes" } else { "landscape" };
            return Err(invalid(name, format!("is for text documents, not for {from}")));
        }
        Ok(())
    }

    /// Whether page `number`, counted from 1, is requested.
    #[must_use]
    pub fn takes_page(&self, number: u32) -> bool {
        let Some(pages) = &self.pages else { return true };
        page_ranges(pages).is_ok_and(|ranges| ranges.iter().any(|(first, last)| (*first..=*last).contains(&number)))
    }
}

/// Reads `1-3,5`: ranges of page numbers, counted from 1.
///
/// # Errors
/// If it is not such a list.
pub fn page_ranges(text: &str) -> Result<Vec<(u32, u32)>, InvalidOption> {
    let wrong = || invalid("pages", format!("takes page numbers from 1 and ranges, for example `1-3,5`, not {text:?}"));
    let number = |part: &str| part.trim().parse().ok().filter(|page| *page > 0).ok_or_else(wrong);
    let mut ranges = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        ranges.push((first, last));
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_numbers_and_ranges() {
        assert_eq!(page_ranges("1-3,5").unwrap(), [(1, 3), (5, 5)]);
        for wrong in ["", "0", "3-1", "a", "1,,2", "-", "1-", "1;2"] {
            assert!(page_ranges(wrong).is_err(), "{wrong}");
        }
        let options = Options { pages: Some("2-3,7".into()), ..Options::default() };
        assert_eq!((1..=8).filter(|page| options.takes_page(*page)).collect::<Vec<_>>(), [2, 3, 7]);
    }

    #[test]
    fn an_option_that_does_not_fit_is_named() {
        let name = |options: Options, from, to| options.check(from, to).unwrap_err().option;
        let archive = Options { pdf_version: Some(PdfVersion::A2b), ..Options::default() };
        assert_eq!(name(archive, Format::Docx, Format::Odt), "pdf_version");
        let notes = Options { settings: [("ExportNotes".into(), Setting::Switch(true))].into(), ..Options::default() };
        assert_eq!(name(notes.clone(), Format::Docx, Format::Png), "settings");
        assert_eq!(notes.check(Format::Docx, Format::Pdf), Ok(()));
        let pages = Options { pages: Some("1".into()), ..Options::default() };
        assert_eq!(name(pages.clone(), Format::Docx, Format::Odt), "pages");
        assert_eq!(pages.check(Format::Docx, Format::Png), Ok(()));
        let indexes = Options { update_indexes: true, ..Options::default() };
        assert_eq!(name(indexes, Format::Csv, Format::Pdf), "update_indexes");
        let quality = Options { image_quality: Some(0), ..Options::default() };
        assert_eq!(name(quality, Format::Docx, Format::Pdf), "image_quality");
    }
}
