//! Reads the form of Gotenberg's `/forms/libreoffice/convert` route. Field names, defaults and error texts are those
//! that its clients expect.
//!
//! A field that requests an unsupported feature is an error; it is never ignored. A field with its default value is
//! accepted.

use std::collections::BTreeMap;

use pipeline::documents::{Finish, Format, LONGEST_PASSWORD, Lock, Options, PdfVersion, Split, page_ranges};
use pipeline::{Params, Rejection};
use serde_json::{Map, Value as Json};

use super::parameters::{Dialect, Parameters};
use super::{export_settings, pdf_metadata};

/// The parameter that holds the fields of the form.
const FORM_PARAM: &str = "form";

/// Fields that are not export settings.
const KNOWN: [&str; 19] = [
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
    "splitMode",
    "splitSpan",
    "splitUnify",
    "metadata",
    "pdfa",
    "pdfua",
    "nativePdfFormats",
    "userPassword",
    "ownerPassword",
];

/// Gotenberg's error for a form without a file of an accepted extension.
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
pub fn read(params: &Params) -> Result<Parameters, Rejection> {
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
        watermark: form.text("nativeWatermarkText"),
        image_quality: form.number("quality")?,
        image_dpi,
        image_lossless: form.yes("losslessImageCompression", false)?,
        update_indexes: form.yes("updateIndexes", true)?,
        landscape: form.yes("landscape", false)?,
        png_width: None,
        settings: export_settings::read(|field| form.text(field))
            .map_err(|(field, given, takes)| bad_field(field, &given, &takes))?,
    };
    let finish = form.finish()?;
    check_fit(&options, &finish)?;
    Ok(Parameters { to: Format::Pdf, options, finish, dialect: Dialect::Gotenberg })
}

/// Rejects combinations of fields that are not possible.
fn check_fit(options: &Options, finish: &Finish) -> Result<(), Rejection> {
    let (archival, accessible) = (options.pdf_version.is_some(), options.pdf_ua);
    let conflicts = [
        ("pdfa", archival && finish.lock.is_some(), "userPassword", "PDF/A forbids encryption"),
        ("pdfa", archival && !finish.info.is_empty(), "metadata", "PDF/A wants it in another form too"),
        ("pdfua", accessible && !finish.info.is_empty(), "metadata", "PDF/UA wants it in another form too"),
        ("pdfua", accessible && finish.merge, "merge", "the tags that make a PDF accessible are lost"),
        ("pdfua", accessible && finish.split.is_some(), "splitMode", "the tags that make a PDF accessible are lost"),
    ];
    conflicts.into_iter().find(|(_, both, ..)| *both).map_or(Ok(()), |(one, _, other, why)| {
        Err(invalid(format!("form fields '{one}' and '{other}' do not go together: {why}")))
    })
}

struct Form<'f>(&'f Map<String, Json>);

impl Form<'_> {
    /// The text of a field; `None` if it is empty.
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

    fn finish(&self) -> Result<Finish, Rejection> {
        let info = match self.text("metadata") {
            None => BTreeMap::new(),
            Some(json) => {
                pdf_metadata::read(&json).map_err(|why| invalid(format!("form field 'metadata' is invalid: {why}")))?
            }
        };
        Ok(Finish { merge: self.yes("merge", false)?, split: self.split()?, info, lock: self.lock()? })
    }

    fn split(&self) -> Result<Option<Split>, Rejection> {
        let (mode, span) = (self.text("splitMode"), self.text("splitSpan").unwrap_or_default());
        let unify = self.yes("splitUnify", false)?;
        let bad_span = |takes| match &*span {
            "" => invalid("form field 'splitSpan' is required"),
            given => bad_field("splitSpan", given, takes),
        };
        match mode.as_deref() {
            None => Ok(None),
            Some("intervals") => {
                let every = span.parse().ok().filter(|every| *every > 0);
                Ok(Some(Split::Every(every.ok_or_else(|| bad_span("a whole number from 1"))?)))
            }
            Some("pages") => {
                let ranges = page_ranges(&span).map_err(|_| bad_span("page numbers and ranges as 1-3,5"))?;
                Ok(Some(Split::Ranges { ranges, unify }))
            }
            Some(other) => Err(bad_field("splitMode", other, "intervals or pages")),
        }
    }

    fn lock(&self) -> Result<Option<Lock>, Rejection> {
        let password = |field: &str| match self.text(field).unwrap_or_default() {
            long if long.len() > LONGEST_PASSWORD => {
                Err(invalid(format!("form field '{field}' is longer than {LONGEST_PASSWORD} bytes")))
            }
            password => Ok(password),
        };
        let lock = Lock { user: password("userPassword")?, owner: password("ownerPassword")? };
        Ok((!lock.user.is_empty() || !lock.owner.is_empty()).then_some(lock))
    }

    /// Rejects fields that request unsupported features.
    fn check(&self) -> Result<(), Rejection> {
        for (field, value) in self.0 {
            let given = value.as_str().unwrap_or_default();
            let known = KNOWN.contains(&field.as_str()) || export_settings::has(field);
            if !known && !given.is_empty() && (field != "flatten" || given != "false") {
                let (field, given) = (cut(field), cut(given));
                return Err(invalid(format!("form field '{field}' is not supported (got '{given}'): leave it out")));
            }
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
    use pipeline::documents::Setting;
    use serde_json::json;

    use super::*;

    fn form(fields: Json) -> Result<Parameters, Rejection> {
        read(&serde_json::from_value(json!({ "form": fields })).unwrap())
    }

    #[test]
    fn fields_become_options_and_defaults_change_nothing() {
        let parameters = form(json!({})).unwrap();
        assert!(
            parameters.is_met_by(b"") && parameters.options.update_indexes && parameters.finish == Finish::default()
        );
        let fields = json!({
            "nativePageRanges": "1-3", "landscape": "true", "pdfa": "PDF/A-3b", "merge": "true",
            "quality": "70", "reduceImageResolution": "true", "exportBookmarks": "true", "updateIndexes": "false",
            "exportNotes": "true", "zoom": "75", "magnification": "4",
        });
        let parameters = form(fields).unwrap();
        let options = parameters.options;
        assert!(parameters.finish.merge && options.landscape && !options.update_indexes);
        let set = |name: &str| options.settings[name];
        let values = [set("ExportNotes"), set("Zoom"), set("Magnification"), set("ExportBookmarks")];
        let (on, number) = (Setting::Switch(true), Setting::Number);
        assert_eq!(values, [on, number(75), number(4), on]);
        assert_eq!(
            (options.pages.as_deref(), options.image_quality, options.image_dpi),
            (Some("1-3"), Some(70), Some(300))
        );
        assert_eq!(options.pdf_version, Some(PdfVersion::A3b));
    }

    #[test]
    fn unsupported_fields_are_rejected_by_name() {
        for (field, value) in [
            ("exportNotes", "loudly"),
            ("zoom", "0"),
            ("flatten", "true"),
            ("pdfa", "PDF/A-1b"),
            ("quality", "good"),
            ("merge", "maybe"),
            ("splitMode", "halves"),
            ("metadata", "[]"),
            ("userPassword", &*"x".repeat(128)),
            ("downloadFrom", "[{}]"),
        ] {
            let why = form(json!({ field: value })).unwrap_err();
            assert_eq!((why.status, &*why.code), (400, "invalid_form"));
            assert!(why.detail.starts_with("Invalid form data: ") && why.detail.contains(field), "{why}");
        }
        for span in ["", "0", "two"] {
            let why = form(json!({ "splitMode": "intervals", "splitSpan": span })).unwrap_err();
            assert!(why.detail.contains("splitSpan"), "{why}");
        }
        assert!(form(json!({ "flatten": "false" })).is_ok());
    }

    #[test]
    fn conflicting_fields_are_rejected() {
        for fields in [
            json!({ "pdfa": "PDF/A-2b", "userPassword": "x" }),
            json!({ "pdfa": "PDF/A-2b", "metadata": "{\"Author\":\"A\"}" }),
            json!({ "pdfua": "true", "metadata": "{\"Author\":\"A\"}" }),
            json!({ "pdfua": "true", "merge": "true" }),
            json!({ "pdfua": "true", "splitMode": "intervals", "splitSpan": "1" }),
        ] {
            let why = form(fields.clone()).unwrap_err();
            assert!(why.detail.contains("do not go together"), "{fields}: {why}");
        }
        assert!(form(json!({ "pdfua": "true" })).unwrap().options.pdf_ua);
    }

    #[test]
    fn pdfs_are_finished_as_the_form_says() {
        let fields = json!({
            "merge": "true", "splitMode": "pages", "splitSpan": "1-2,4", "splitUnify": "true",
            "metadata": "{\"Title\":\"T\"}", "ownerPassword": "o",
        });
        let finish = form(fields).unwrap().finish;
        assert_eq!(finish.split, Some(Split::Ranges { ranges: vec![(1, 2), (4, 4)], unify: true }));
        assert_eq!(finish.lock, Some(Lock { user: String::new(), owner: "o".into() }));
        assert!(finish.merge && !finish.info.is_empty());
        let every = form(json!({ "splitMode": "intervals", "splitSpan": "3" })).unwrap().finish.split;
        assert_eq!(every, Some(Split::Every(3)));
    }
}
