//! The form of Gotenberg's `/forms/libreoffice/convert` as a wish: names, defaults and the words of errors are its clients'.
//!
//! A field that asks for what is not there is an error, and not silence; with its default it asks for nothing.

use pipeline::documents::{Format, Options, PdfVersion};
use pipeline::{Params, Rejection};
use serde_json::{Map, Value as Json};

use super::wish::{Fields, Wish};

/// The parameter that holds the form's fields.
const FORM_PARAM: &str = "form";

/// Fields that are known and do nothing else than their default here.
const FIXED: [(&str, &str); 32] = [
    ("exportFormFields", "true"),
    ("allowDuplicateFieldNames", "false"),
    ("exportBookmarks", "true"),
    ("exportBookmarksToPdfDestination", "false"),
    ("exportPlaceholders", "false"),
    ("exportNotes", "false"),
    ("exportNotesPages", "false"),
    ("exportOnlyNotesPages", "false"),
    ("exportNotesInMargin", "false"),
    ("convertOooTargetToPdfTarget", "false"),
    ("exportLinksRelativeFsys", "false"),
    ("exportHiddenSlides", "false"),
    ("skipEmptyPages", "false"),
    ("addOriginalDocumentAsStream", "false"),
    ("singlePageSheets", "false"),
    ("initialView", "0"),
    ("initialPage", "1"),
    ("magnification", "0"),
    ("zoom", "100"),
    ("pageLayout", "0"),
    ("firstPageOnLeft", "false"),
    ("resizeWindowToInitialPage", "false"),
    ("centerWindow", "false"),
    ("openInFullScreenMode", "false"),
    ("displayPDFDocumentTitle", "true"),
    ("hideViewerMenubar", "false"),
    ("hideViewerToolbar", "false"),
    ("hideViewerWindowControls", "false"),
    ("useTransitionEffects", "true"),
    ("openBookmarkLevels", "-1"),
    ("flatten", "false"),
    ("ownerPassword", ""),
];

/// Fields that do something.
const KNOWN: [&str; 15] = [
    "password",
    "landscape",
    "nativePageRanges",
    "updateIndexes",
    "losslessImageCompression",
    "quality",
    "reduceImageResolution",
    "maxImageResolution",
    "nativeWatermarkText",
    "merge",
    "pdfa",
    "pdfua",
    "nativePdfFormats",
    "userPassword",
    "downloadFrom",
];

/// Its own word for extensions that are taken.
pub fn nothing_sent() -> Rejection {
    let taken: Vec<String> =
        Format::ALL.iter().filter(|format| **format != Format::Png).map(|format| format!(".{format}")).collect();
    invalid(format!("no form file found for extensions: [{}]", taken.join(" ")))
}

fn invalid(what: impl std::fmt::Display) -> Rejection {
    Rejection::new(400, "invalid_form", format!("Invalid form data: {what}"))
}

/// # Errors
/// 400 naming the field.
pub fn read(params: &Params) -> Result<Wish, Rejection> {
    let none = Map::new();
    let form = Form(params.get(FORM_PARAM).and_then(Json::as_object).unwrap_or(&none));
    form.check()?;
    let image_dpi = if form.yes("reduceImageResolution", false)? {
        Some(form.number("maxImageResolution")?.unwrap_or(300))
    } else {
        None
    };
    let options = Options {
        pdf_version: form.pdf_version()?,
        pdf_ua: form.yes("pdfua", false)?,
        pages: form.text("nativePageRanges"),
        password: form.text("password"),
        encrypt: form.text("userPassword"),
        watermark: form.text("nativeWatermarkText"),
        image_quality: form.number("quality")?,
        image_dpi,
        image_lossless: form.yes("losslessImageCompression", false)?,
        update_indexes: form.yes("updateIndexes", true)?,
        landscape: form.yes("landscape", false)?,
        png_width: None,
    };
    let merge = form.yes("merge", false)?;
    if merge && options.encrypt.is_some() {
        return Err(invalid("form fields 'merge' and 'userPassword' do not go together"));
    }
    if merge && options.pdf_ua {
        // The tags that make a PDF accessible are lost in a merge.
        return Err(invalid("form fields 'merge' and 'pdfua' do not go together"));
    }
    if options.encrypt.is_some() && options.pdf_version.is_some() {
        return Err(invalid("form fields 'pdfa' and 'userPassword' do not go together: PDF/A forbids encryption"));
    }
    Ok(Wish { to: Format::Pdf, options, merge, fields: Fields::Gotenberg })
}

struct Form<'f>(&'f Map<String, Json>);

impl Form<'_> {
    /// A field's text; an empty one is none.
    fn text(&self, field: &str) -> Option<String> {
        self.0.get(field).and_then(Json::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn yes(&self, field: &str, default: bool) -> Result<bool, Rejection> {
        match self.text(field).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(bad_field(field, other, "true or false")),
        }
    }

    fn number<N: std::str::FromStr>(&self, field: &str) -> Result<Option<N>, Rejection> {
        let Some(text) = self.text(field) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| bad_field(field, &text, "a whole number"))
    }

    fn pdf_version(&self) -> Result<Option<PdfVersion>, Rejection> {
        match self.text("pdfa").as_deref() {
            None => Ok(None),
            Some("PDF/A-2b") => Ok(Some(PdfVersion::A2b)),
            Some("PDF/A-3b") => Ok(Some(PdfVersion::A3b)),
            Some(other) => Err(bad_field("pdfa", other, "PDF/A-2b or PDF/A-3b")),
        }
    }

    /// Refuses fields that ask for what is not done here.
    fn check(&self) -> Result<(), Rejection> {
        for (field, value) in self.0 {
            let given = value.as_str().unwrap_or_default();
            if KNOWN.contains(&field.as_str()) && field != "downloadFrom" {
                continue;
            }
            let default = FIXED.iter().find(|(known, _)| known == field).map(|(_, default)| *default);
            if given.is_empty() || default == Some(given) {
                continue;
            }
            let only = default.map_or("leave it out".to_owned(), |default| format!("only '{default}' is"));
            return Err(invalid(format!(
                "form field '{}' is not supported (got '{}'): {only}",
                cut(field),
                cut(given)
            )));
        }
        Ok(())
    }
}

fn bad_field(field: &str, given: &str, takes: &str) -> Rejection {
    invalid(format!("form field '{field}' is invalid (got '{}', takes {takes})", cut(given)))
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn form(fields: Json) -> Result<Wish, Rejection> {
        read(&serde_json::from_value(json!({ "form": fields })).unwrap())
    }

    #[test]
    fn fields_become_options_and_defaults_nothing() {
        let wish = form(json!({})).unwrap();
        assert!(wish.is_met_by(b"") && wish.options.update_indexes && !wish.merge);
        let fields = json!({
            "nativePageRanges": "1-3", "landscape": "true", "pdfa": "PDF/A-3b", "merge": "true",
            "quality": "70", "reduceImageResolution": "true", "exportBookmarks": "true", "updateIndexes": "false",
        });
        let wish = form(fields).unwrap();
        let options = wish.options;
        assert!(wish.merge && options.landscape && !options.update_indexes);
        assert_eq!(
            (options.pages.as_deref(), options.image_quality, options.image_dpi),
            (Some("1-3"), Some(70), Some(300))
        );
        assert_eq!(options.pdf_version, Some(PdfVersion::A3b));
    }

    #[test]
    fn what_is_not_done_is_said() {
        for (field, value) in [
            ("exportNotes", "true"),
            ("pdfa", "PDF/A-1b"),
            ("quality", "good"),
            ("merge", "maybe"),
            ("splitMode", "pages"),
            ("downloadFrom", "[{}]"),
        ] {
            let why = form(json!({ field: value })).unwrap_err();
            assert_eq!((why.status, &*why.code), (400, "invalid_form"));
            assert!(why.detail.starts_with("Invalid form data: ") && why.detail.contains(field), "{why}");
        }
        assert!(form(json!({ "merge": "true", "userPassword": "x" })).is_err());
        assert!(form(json!({ "merge": "true", "pdfua": "true" })).is_err());
        assert!(form(json!({ "pdfua": "true" })).unwrap().options.pdf_ua);
    }
}
