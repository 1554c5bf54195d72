//! Conversion options as the PDF export filter of LibreOffice takes them (JSON of typed values).

use pipeline::documents::{Options, PdfVersion, Setting};
use serde_json::{Map, Value, json};

/// LibreOffice's number of a PDF version (`SelectPdfVersion`).
fn pdf_version_number(version: PdfVersion) -> u8 {
    match version {
        PdfVersion::A2b => 2,
        PdfVersion::A3b => 3,
    }
}

/// The filter options of a PDF export. Also turns off two defaults that nobody expects: comments as annotations, and
/// images scaled down.
pub(super) fn pdf_filter(options: &Options) -> String {
    let mut filter = Map::new();
    let long = |value: u64| json!({"type": "long", "value": value.to_string()});
    let string = |value: &str| json!({"type": "string", "value": value});
    let yes = || setting(Setting::Switch(true));
    let no = || setting(Setting::Switch(false));
    let mut put = |key: &str, value: Value| filter.insert(key.to_owned(), value);
    put("ExportNotes", no());
    put("ReduceImageResolution", no());
    if let Some(version) = options.pdf_version {
        put("SelectPdfVersion", long(pdf_version_number(version).into()));
    }
    if options.pdf_ua {
        put("PDFUACompliance", yes());
        put("UseTaggedPDF", yes());
    }
    if let Some(pages) = &options.pages {
        put("PageRange", string(pages));
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
    for (name, value) in &options.settings {
        filter.insert(name.clone(), setting(*value));
    }
    Value::Object(filter).to_string()
}

fn setting(value: Setting) -> Value {
    match value {
        Setting::Switch(on) => json!({"type": "boolean", "value": on.to_string()}),
        Setting::Number(number) => json!({"type": "long", "value": number.to_string()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_options_is_escaped() {
        let settings = [("Zoom".into(), Setting::Number(50)), ("ExportNotes".into(), Setting::Switch(true))].into();
        let options = Options { watermark: Some("a\"},{\"EncryptFile".into()), settings, ..Options::default() };
        let filter: Value = serde_json::from_str(&pdf_filter(&options)).unwrap();
        assert_eq!(filter.as_object().unwrap().len(), 4);
        assert_eq!(filter["Zoom"], json!({"type": "long", "value": "50"}));
        assert_eq!(filter["ExportNotes"], json!({"type": "boolean", "value": "true"}));
        let usual: Value = serde_json::from_str(&pdf_filter(&Options::default())).unwrap();
        assert_eq!(usual["ExportNotes"], json!({"type": "boolean", "value": "false"}));
    }
}
