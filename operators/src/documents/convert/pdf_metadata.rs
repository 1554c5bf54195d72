//! Reads the metadata to write into a PDF, from the JSON that Gotenberg's clients send.

use std::collections::BTreeMap;

use pipeline::documents::Entry;
use pipeline::parse_message;
use serde_json::Value as Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Limits: bytes in total, number of entries, bytes of a name.
const LONGEST: usize = 16 << 10;
const MOST: usize = 50;
const LONGEST_NAME: usize = 64;

/// Reads a JSON object of strings, numbers, booleans and lists of them, with dates in RFC 3339.
///
/// # Errors
/// The entry and what is wrong with it.
pub fn read(json: &str) -> Result<BTreeMap<String, Entry>, String> {
    if json.len() > LONGEST {
        return Err(format!("{} bytes, at most {LONGEST} are taken", json.len()));
    }
    let given: BTreeMap<String, Json> =
        serde_json::from_str(json).map_err(|error| format!("no JSON object: {}", parse_message(&error)))?;
    if given.len() > MOST {
        return Err(format!("{} entries, at most {MOST} are taken", given.len()));
    }
    given.into_iter().map(|(name, value)| entry(&name, &value).map(|entry| (name, entry))).collect()
}

fn entry(name: &str, value: &Json) -> Result<Entry, String> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':'));
    if name.is_empty() || name.len() > LONGEST_NAME || !plain {
        return Err(format!("{:?} is no name of an entry: up to {LONGEST_NAME} letters and digits are", cut(name)));
    }
    let text = text(value).ok_or_else(|| format!("{name} takes a text, or a list of them"))?;
    match name {
        "PDFVersion" => Err("PDFVersion is not for setting".into()),
        "CreationDate" | "ModDate" => date(&text)
            .map(Entry::Text)
            .ok_or_else(|| format!("{name} takes a date as 2026-01-31T12:00:00+01:00, not {:?}", cut(&text))),
        "Trapped" => ["True", "False", "Unknown"]
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(&text))
            .map(|known| Entry::Name(known.into()))
            .ok_or_else(|| format!("Trapped takes True, False or Unknown, not {:?}", cut(&text))),
        _ => Ok(Entry::Text(text)),
    }
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(_) | Json::Bool(_) => Some(value.to_string()),
        Json::Array(items) if !items.iter().any(Json::is_array) => {
            items.iter().map(text).collect::<Option<Vec<_>>>().map(|items| items.join(", "))
        }
        _ => None,
    }
}

/// A PDF date, `D:20260131120000+01'00'` (ISO 32000, 7.9.4).
fn date(text: &str) -> Option<String> {
    let date = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let (hours, minutes, _) = date.offset().as_hms();
    let sign = if date.offset().is_negative() { '-' } else { '+' };
    Some(format!(
        "D:{:04}{:02}{:02}{:02}{:02}{:02}{sign}{:02}'{:02}'",
        date.year(),
        u8::from(date.month()),
        date.day(),
        date.hour(),
        date.minute(),
        date.second(),
        hours.abs(),
        minutes.abs()
    ))
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_in_pdf_syntax() {
        assert_eq!(date("2026-01-31T12:00:00+01:30").unwrap(), "D:20260131120000+01'30'");
        assert_eq!(date("2026-01-31T12:00:00Z").unwrap(), "D:20260131120000+00'00'");
        assert_eq!(date("2026-01-31T12:00:00-08:00").unwrap(), "D:20260131120000-08'00'");
    }

    #[test]
    fn an_invalid_metadata_entry_is_named() {
        for (json, needle) in [
            ("[]", "no JSON object"),
            (r#"{"a b":"x"}"#, "no name"),
            (r#"{"Author":{}}"#, "Author takes a text"),
            (r#"{"ModDate":"yesterday"}"#, "yesterday"),
            (r#"{"Trapped":"maybe"}"#, "maybe"),
            (r#"{"PDFVersion":"1.4"}"#, "PDFVersion"),
        ] {
            let why = read(json).unwrap_err();
            assert!(why.contains(needle), "{json}: {why}");
        }
        assert!(read(&format!("{{\"Title\":\"{}\"}}", "x".repeat(LONGEST))).unwrap_err().contains("at most"));
        assert!(read("{}").unwrap().is_empty());
    }
}
