//! Options of a conversion as the filters of LibreOffice read them.

use pipeline::documents::{Options, PdfVersion};
use serde_json::{Map, Value, json};

/// The engine's number of a version (`SelectPdfVersion`).
fn number(version: PdfVersion) -> u8 {
    match version {
        PdfVersion::A2b => 2,
        PdfVersion::A3b => 3,
    }
}

/// The options as the PDF filter reads them: JSON of typed values, empty where there are none.
pub(super) fn of_pdf(options: &Options) -> String {
    let mut filter = Map::new();
    let long = |value: u64| json!({"type": "long", "value": value.to_string()});
    let string = |value: &str| json!({"type": "string", "value": value});
    let yes = || json!({"type": "boolean", "value": "true"});
    let mut put = |key: &str, value: Value| filter.insert(key.to_owned(), value);
    if let Some(version) = options.pdf_version {
        put("SelectPdfVersion", long(number(version).into()));
    }
    if options.pdf_ua {
        put("PDFUACompliance", yes());
        put("UseTaggedPDF", yes());
    }
    if let Some(pages) = &options.pages {
        put("PageRange", string(pages));
    }
    if let Some(password) = &options.encrypt {
        put("EncryptFile", yes());
        put("DocumentOpenPassword", string(password));
    }
    if let Some(text) = &options.watermark {
        put("Watermark", string(text));
    }
    if let Some(quality) = options.image_quality {
        put("Quality", long(quality.into()));
    }
    if let Some(dpi) = options.image_dpi {
        put("ReduceImageResolution", yes());
        put("MaxImageResolution", long(dpi.into()));
    }
    if options.image_lossless {
        put("UseLosslessCompression", yes());
    }
    if filter.is_empty() { String::new() } else { Value::Object(filter).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_options_stays_text() {
        let options = Options { watermark: Some("a\"},{\"EncryptFile".into()), ..Options::default() };
        let filter: Value = serde_json::from_str(&of_pdf(&options)).unwrap();
        assert_eq!(filter.as_object().unwrap().len(), 1);
        assert_eq!(of_pdf(&Options::default()), "");
    }
}
