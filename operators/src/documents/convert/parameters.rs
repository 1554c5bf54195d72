//! The parameters of a conversion: target format, options, and which documents are accepted.

use std::collections::BTreeMap;

use pipeline::documents::{Family, Finish, Format, Options, PdfVersion};
use serde::Deserialize;

use crate::documents::office::Kind;

/// How requests pass their parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Caudal's own parameters: `format`, `pages`, `password`, `watermark`, `quality`, `width`, `landscape`,
    /// `update_indexes`.
    #[default]
    Own,
    /// The fields of Gotenberg's form for LibreOffice.
    Gotenberg,
}

/// The parameters of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Target format.
    pub to: Format,
    /// Options of the conversion.
    pub options: Options,
    /// What is done to PDFs afterwards.
    pub finish: Finish,
    /// The dialect they were read from.
    pub dialect: Dialect,
}

/// The document types that a request accepts.
#[derive(Clone, Copy, Debug)]
pub struct AcceptedTypes {
    password: bool,
    pdf: bool,
}

const DOCUMENTS: [Kind; 12] = [
    Kind::Docx,
    Kind::Xlsx,
    Kind::Pptx,
    Kind::Odt,
    Kind::Ods,
    Kind::Odp,
    Kind::Rtf,
    Kind::Html,
    Kind::Csv,
    Kind::Txt,
    Kind::Pdf,
    Kind::EncryptedOoxml,
];

impl AcceptedTypes {
    /// As file types.
    pub fn kinds(self) -> &'static [Kind] {
        match (self.password, self.pdf) {
            (true, _) => &DOCUMENTS,
            (false, true) => &DOCUMENTS[..11],
            (false, false) => &DOCUMENTS[..10],
        }
    }
}

impl Parameters {
    /// The accepted types: password-protected documents if a password is given, PDF if the target is PDF or an image.
    pub fn accepts(&self) -> AcceptedTypes {
        AcceptedTypes { password: self.options.password.is_some(), pdf: self.to.family() == Family::Pages }
    }

    /// Whether a document of the target format already satisfies the parameters: they ask for nothing but the format,
    /// pages of a PDF, or a standard that the PDF declares (in XMP, which these standards require as plain text).
    pub fn is_met_by(&self, document: &[u8]) -> bool {
        let declares = |text: &str| memchr::memmem::find(document, text.as_bytes()).is_some();
        let archival = match self.options.pdf_version {
            None => true,
            Some(PdfVersion::A2b) => declares("<pdfaid:part>2<"),
            Some(PdfVersion::A3b) => declares("<pdfaid:part>3<"),
        };
        let accessible = !self.options.pdf_ua || declares("<pdfuaid:part>1<");
        // Export settings apply only to a conversion.
        let settings = BTreeMap::new();
        let mut rest =
            Options { update_indexes: false, pdf_version: None, pdf_ua: false, settings, ..self.options.clone() };
        // Extracting pages would lose the tags of PDF/UA.
        if self.to == Format::Pdf && !self.options.pdf_ua {
            rest.pages = None;
        }
        archival && accessible && rest == Options::default()
    }

    /// The options that apply to a document: those for texts are dropped for other formats.
    pub fn options_for(&self, from: Format) -> Options {
        let is_text = from.family() == Family::Text;
        let mut options = self.options.clone();
        options.update_indexes &= is_text;
        options
    }
}
