//! CSV to ODS: converts comma-separated values to a flat OpenDocument spreadsheet.
//!
//! LibreOffice's own CSV import opens a dialog and crashes without a display, so it never gets a CSV file. The
//! separator is the one of `, ; TAB |` that is most frequent in the first line. A cell that is a plain decimal number
//! becomes a number, everything else stays text.

use std::fmt::Write as _;

/// Most cells of a table; more would keep LibreOffice busy for minutes.
const MAX_CELLS: usize = 1_000_000;

const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
<office:document xmlns:office=\"urn:oasis:names:tc:opendocument:xmlns:office:1.0\" \
xmlns:table=\"urn:oasis:names:tc:opendocument:xmlns:table:1.0\" \
xmlns:text=\"urn:oasis:names:tc:opendocument:xmlns:text:1.0\" office:version=\"1.2\" \
office:mimetype=\"application/vnd.oasis.opendocument.spreadsheet\">\
<office:body><office:spreadsheet><table:table table:name=\"Sheet1\">";
const TAIL: &str = "</table:table></office:spreadsheet></office:body></office:document>";

/// Converts a UTF-8 table (invalid bytes become U+FFFD) to a flat OpenDocument spreadsheet.
///
/// # Errors
/// If a quote is never closed or there are too many cells.
pub(super) fn csv_to_ods(bytes: &[u8]) -> Result<String, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(separator(bytes)).from_reader(bytes);
    let mut sheet = String::from(HEAD);
    let mut row = csv::ByteRecord::new();
    let mut cells = 0;
    while reader.read_byte_record(&mut row).map_err(|error| error.to_string())? {
        cells += row.len();
        if cells > MAX_CELLS {
            return Err(format!("the table has more than {MAX_CELLS} cells"));
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
    // `max_by_key` takes the last of equals, so the comma goes last.
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

/// `-12.5` is a number; `007`, `1e5` and `+49 89` are text that conversion to a number would destroy.
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
            // XML 1.0 does not allow these characters.
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => sheet.push('\u{fffd}'),
            other => sheet.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_decimals_are_numbers_and_codes_are_text() {
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
        let sheet = csv_to_ods(b"a,<b>&\n\"x\ny\",\x01\n").unwrap();
        assert!(sheet.contains("<text:p>&lt;b&gt;&amp;</text:p>"), "{sheet}");
        assert!(sheet.contains("<text:p>x</text:p><text:p>y</text:p>"), "{sheet}");
        assert!(!sheet.contains('\u{1}'));
    }
}
