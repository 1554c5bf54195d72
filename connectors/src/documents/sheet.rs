//! Comma-separated values as a flat OpenDocument spreadsheet.
//!
//! The engine's own reader of such files asks in a window how to read them and dies of there being none, so it never
//! gets to see one. The separator is the one of `, ; TAB |` that the first line has most of; a cell that reads as a plain
//! decimal number is one, everything else is text, as it stands.

use std::fmt::Write as _;

/// Most cells of a table; more make the engine work for minutes.
const MOST_CELLS: usize = 1_000_000;

const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
<office:document xmlns:office=\"urn:oasis:names:tc:opendocument:xmlns:office:1.0\" \
xmlns:table=\"urn:oasis:names:tc:opendocument:xmlns:table:1.0\" \
xmlns:text=\"urn:oasis:names:tc:opendocument:xmlns:text:1.0\" office:version=\"1.2\" \
office:mimetype=\"application/vnd.oasis.opendocument.spreadsheet\">\
<office:body><office:spreadsheet><table:table table:name=\"Sheet1\">";
const TAIL: &str = "</table:table></office:spreadsheet></office:body></office:document>";

/// The table in `bytes`, which are UTF-8 (what is not becomes U+FFFD), as a flat OpenDocument spreadsheet.
///
/// # Errors
/// If a quote is never closed or there are too many cells.
pub(super) fn from_csv(bytes: &[u8]) -> Result<String, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(separator(bytes)).from_reader(bytes);
    let mut sheet = String::from(HEAD);
    let mut row = csv::ByteRecord::new();
    let mut cells = 0;
    while reader.read_byte_record(&mut row).map_err(|error| error.to_string())? {
        cells += row.len();
        if cells > MOST_CELLS {
            return Err(format!("a table of more than {MOST_CELLS} cells"));
        }
        sheet.push_str("<table:table-row>");
        row.iter().for_each(|cell| push_cell(&mut sheet, &String::from_utf8_lossy(cell)));
        sheet.push_str("</table:table-row>");
    }
    sheet.push_str(TAIL);
    Ok(sheet)
}

fn separator(bytes: &[u8]) -> u8 {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |separator: &u8| line.iter().filter(|byte| *byte == separator).count();
    // `max_by_key` takes the last of equals: the usual one goes last.
    SEPARATORS.into_iter().rev().max_by_key(count).unwrap_or(b',')
}

fn push_cell(sheet: &mut String, text: &str) {
    if text.is_empty() {
        sheet.push_str("<table:table-cell/>");
        return;
    }
    let value = if is_number(text) { format!("float\" office:value=\"{text}") } else { "string".to_owned() };
    let _ = write!(sheet, "<table:table-cell office:value-type=\"{value}\">");
    for line in text.lines() {
        sheet.push_str("<text:p>");
        push_escaped(sheet, line);
        sheet.push_str("</text:p>");
    }
    sheet.push_str("</table:table-cell>");
}

/// `-12.5` is a number; `007`, `1e5` and `+49 89` are texts that a number would destroy.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    plain(whole) && plain(fraction) && digits.len() <= 15 && (whole == "0" || !whole.starts_with('0'))
}

fn push_escaped(sheet: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '<' => sheet.push_str("&lt;"),
            '>' => sheet.push_str("&gt;"),
            '&' => sheet.push_str("&amp;"),
            // XML 1.0 has no place for these.
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => sheet.push('\u{fffd}'),
            other => sheet.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers_and_codes_are_texts() {
        for number in ["0", "7", "-12.5", "0.25", "123456"] {
            assert!(is_number(number), "{number}");
        }
        for text in ["", "-", "007", "1e5", "+49", "1,5", "1.", ".5", "1.2.3", "12345678901234567890"] {
            assert!(!is_number(text), "{text}");
        }
    }

    #[test]
    fn the_separator_is_the_most_frequent_one() {
        assert_eq!(separator(b"a;b;c\n1,2;3"), b';');
        assert_eq!(separator(b"a,b\n"), b',');
        assert_eq!(separator(b"plain"), b',');
    }

    #[test]
    fn text_stays_text() {
        let sheet = from_csv(b"a,<b>&\n\"x\ny\",\x01\n").unwrap();
        assert!(sheet.contains("<text:p>&lt;b&gt;&amp;</text:p>"), "{sheet}");
        assert!(sheet.contains("<text:p>x</text:p><text:p>y</text:p>"), "{sheet}");
        assert!(!sheet.contains('\u{1}'));
    }
}
