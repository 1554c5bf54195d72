//! Reads Caudal's own parameters: `format`, `pages`, `password`, `watermark`, `quality`, `width`, `landscape` and
//! `update_indexes`.

use pipeline::documents::{Finish, Format, Options, PdfVersion};
use pipeline::{Params, Rejection};
use serde_json::Value as Json;

use super::parameters::{Dialect, Parameters};

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

/// # Errors
/// 400 naming the parameter, its value and what is expected.
pub fn read(params: &Params) -> Result<Parameters, Rejection> {
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
    Ok(Parameters { to, options, finish: Finish::default(), dialect: Dialect::Own })
}

fn bad(field: &str, given: &str, takes: &str) -> Rejection {
    let shown: String = given.chars().take(80).collect();
    Rejection::new(400, "invalid_option", format!("{field} is {shown:?}; expected {takes}"))
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
    fn a_format_may_name_a_pdf_standard() {
        let parameters = read(&params(json!({ "format": "pdfa-2b", "pages": "1-2" }))).unwrap();
        assert_eq!((parameters.to, parameters.options.pdf_version), (Format::Pdf, Some(PdfVersion::A2b)));
    }

    #[test]
    fn the_default_is_pdf() {
        assert_eq!(read(&params(json!({}))).unwrap().to, Format::Pdf);
        assert!(read(&params(json!({}))).unwrap().is_met_by(b""));
    }

    #[test]
    fn a_pdf_that_declares_the_standard_needs_no_conversion() {
        let parameters = read(&params(json!({ "format": "pdfa-2b", "pages": "1-2" }))).unwrap();
        assert!(parameters.options.pages.is_some() && parameters.is_met_by(b"<pdfaid:part>2<"));
        assert!(!read(&params(json!({ "watermark": "x" }))).unwrap().is_met_by(b""));
        let archival = read(&params(json!({ "format": "pdfa-2b" }))).unwrap();
        assert!(archival.is_met_by(b"<pdfaid:part>2</pdfaid:part>") && !archival.is_met_by(b"%PDF-1.7"));
    }

    #[test]
    fn an_invalid_parameter_is_named_with_its_value() {
        for (field, value) in [("format", "exe"), ("landscape", "yes"), ("quality", "good"), ("width", "wide")] {
            let why = read(&params(json!({ field: value }))).unwrap_err();
            assert!(why.status == 400 && why.detail.contains(field) && why.detail.contains(value), "{why}");
        }
    }
}
