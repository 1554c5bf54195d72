//! What a request asks for: the format, and how, from its parameters.

use std::collections::BTreeMap;

use pipeline::documents::{Family, Finish, Format, Options, PdfVersion};
use pipeline::{Params, Rejection};
use serde::Deserialize;
use serde_json::Value as Json;

use super::gotenberg;
use crate::office::Kind;

/// How requests say what they want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fields {
    /// Parameters: `format`, `pages`, `password`, `watermark`, `quality`, `width`, `landscape`, `update_indexes`.
    #[default]
    Own,
    /// The fields of Gotenberg's form for LibreOffice.
    Gotenberg,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What documents shall become.
    pub to: Format,
    /// How.
    pub options: Options,
    /// What is done to PDFs afterwards.
    pub finish: Finish,
    /// How it was said.
    pub fields: Fields,
}

/// Documents that are taken.
#[derive(Clone, Copy, Debug)]
pub struct Accepts {
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

impl Accepts {
    /// As kinds of files.
    pub fn kinds(self) -> &'static [Kind] {
        match (self.password, self.pdf) {
            (true, _) => &DOCUMENTS,
            (false, true) => &DOCUMENTS[..11],
            (false, false) => &DOCUMENTS[..10],
        }
    }
}

impl Wish {
    /// # Errors
    /// 400 naming the field and what it takes.
    pub fn read(fields: Fields, params: &Params) -> Result<Self, Rejection> {
        match fields {
            Fields::Own => own(params),
            Fields::Gotenberg => gotenberg::read(params),
        }
    }

    /// Which documents are taken: behind a password where there is one, PDF where it may stay what it is or be drawn.
    pub fn accepts(&self) -> Accepts {
        Accepts { password: self.options.password.is_some(), pdf: self.to.family() == Family::Pages }
    }

    /// Whether a document of the wished format is what was asked for already: nothing but the format was, pages of a PDF, or
    /// a standard that the PDF says it keeps to (XMP, which these standards want in plain text).
    pub fn is_met_by(&self, document: &[u8]) -> bool {
        let says = |text: &str| memchr::memmem::find(document, text.as_bytes()).is_some();
        let archival = match self.options.pdf_version {
            None => true,
            Some(PdfVersion::A2b) => says("<pdfaid:part>2<"),
            Some(PdfVersion::A3b) => says("<pdfaid:part>3<"),
        };
        let accessible = !self.options.pdf_ua || says("<pdfuaid:part>1<");
        // Settings are of the making, and it is made.
        let settings = BTreeMap::new();
        let mut rest =
            Options { update_indexes: false, pdf_version: None, pdf_ua: false, settings, ..self.options.clone() };
        // The tags of PDF/UA would not survive.
        if self.to == Format::Pdf && !self.options.pdf_ua {
            rest.pages = None;
        }
        archival && accessible && rest == Options::default()
    }

    /// The options as they make sense for a document: what is for texts is not asked of sheets.
    pub fn options_for(&self, from: Format) -> Options {
        let is_text = from.family() == Family::Text;
        let mut options = self.options.clone();
        options.update_indexes &= is_text;
        options
    }

    /// 400: the request has no document.
    pub fn nothing_sent(&self) -> Rejection {
        match self.fields {
            Fields::Own => Rejection::new(400, "no_document", "the request has no document"),
            Fields::Gotenberg => gotenberg::nothing_sent(),
        }
    }
}

/// `pdf`, `pdfa-2b`, `docx`, …
fn format_of(name: &str) -> Option<(Format, Options)> {
    let pdf = |pdf_version, pdf_ua| (Format::Pdf, Options { pdf_version, pdf_ua, ..Options::default() });
    Some(match name {
        "pdfa-2b" => pdf(Some(PdfVersion::A2b), false),
        "pdfa-3b" => pdf(Some(PdfVersion::A3b), false),
        "pdfua" => pdf(None, true),
        name => (Format::from_extension(name)?, Options::default()),
    })
}

fn own(params: &Params) -> Result<Wish, Rejection> {
    let name = text(params, "format")?.unwrap_or("pdf".into());
    let (to, mut options) = format_of(&name).ok_or_else(|| {
        let known: Vec<&str> = Format::ALL.iter().map(|format| format.extension()).collect();
        bad("format", &name, &format!("one of {}, pdfa-2b, pdfa-3b, pdfua", known.join(", ")))
    })?;
    options.pages = text(params, "pages")?;
    options.password = text(params, "password")?;
    options.watermark = text(params, "watermark")?;
    options.image_quality = number(params, "quality", "1 to 100")?;
    options.png_width = number(params, "width", "16 to 4096")?;
    options.landscape = yes(params, "landscape")?;
    options.update_indexes = yes(params, "update_indexes")?;
    Ok(Wish { to, options, finish: Finish::default(), fields: Fields::Own })
}

fn bad(field: &str, given: &str, takes: &str) -> Rejection {
    let shown: String = given.chars().take(80).collect();
    Rejection::new(400, "invalid_option", format!("{field} is {shown:?}: it takes {takes}"))
}

fn text(params: &Params, name: &str) -> Result<Option<String>, Rejection> {
    match params.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) if text.is_empty() => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(value @ (Json::Number(_) | Json::Bool(_))) => Ok(Some(value.to_string())),
        Some(other) => Err(bad(name, &other.to_string(), "text")),
    }
}

fn number<N: std::str::FromStr>(params: &Params, name: &str, takes: &str) -> Result<Option<N>, Rejection> {
    let Some(given) = text(params, name)? else { return Ok(None) };
    given.parse().map(Some).map_err(|_| bad(name, &given, takes))
}

fn yes(params: &Params, name: &str) -> Result<bool, Rejection> {
    match text(params, name)?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(bad(name, other, "true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn params(value: Json) -> Params {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_format_may_say_which_pdf() {
        let wish = own(&params(json!({ "format": "pdfa-2b", "pages": "1-2" }))).unwrap();
        assert_eq!((wish.to, wish.options.pdf_version), (Format::Pdf, Some(PdfVersion::A2b)));
        assert_eq!(own(&params(json!({}))).unwrap().to, Format::Pdf);
        assert!(own(&params(json!({}))).unwrap().is_met_by(b""));
        assert!(wish.options.pages.is_some() && wish.is_met_by(b"<pdfaid:part>2<"));
        assert!(!own(&params(json!({ "watermark": "x" }))).unwrap().is_met_by(b""));
        let archival = own(&params(json!({ "format": "pdfa-2b" }))).unwrap();
        assert!(archival.is_met_by(b"<pdfaid:part>2</pdfaid:part>") && !archival.is_met_by(b"%PDF-1.7"));
        for (field, value) in [("format", "exe"), ("landscape", "yes"), ("quality", "good"), ("width", "wide")] {
            let why = own(&params(json!({ field: value }))).unwrap_err();
            assert!(why.status == 400 && why.detail.contains(field) && why.detail.contains(value), "{why}");
        }
    }
}
