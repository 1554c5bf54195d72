//! Verifies a result of LibreOffice: it reports success even for empty, truncated or wrong files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use pipeline::documents::Format;

/// `%%EOF` must be within this many bytes of the end of a PDF.
const PDF_TAIL: u64 = 1024;

/// Checks size and format of the file and counts its pages; 0 if the format has none.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(super) fn verify_output(path: &Path, format: Format, largest: u64, most_pages: u32) -> Result<u32, String> {
    let mut file = File::open(path).map_err(|error| format!("LibreOffice wrote nothing ({error})"))?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    if size > largest {
        return Err(format!("the result has {size} bytes, at most {largest} are allowed"));
    }
    let mut head = [0; 8];
    let read = file.read(&mut head).map_err(|error| error.to_string())?;
    let starts = |signature: &[u8]| head[..read].starts_with(signature);
    let valid = match format {
        Format::Pdf => starts(b"%PDF-"),
        Format::Rtf => starts(b"{\\rtf"),
        Format::Docx | Format::Odt | Format::Xlsx | Format::Ods | Format::Pptx | Format::Odp => starts(b"PK\x03\x04"),
        Format::Html => size > 0,
        Format::Txt | Format::Csv => true,
        // PNG is never written by LibreOffice here.
        Format::Png => false,
    };
    if !valid {
        return Err(format!("LibreOffice wrote {size} bytes that are not {format}"));
    }
    match format {
        Format::Pdf => pdf_pages(&mut file, size, most_pages),
        _ => Ok(0),
    }
}

fn pdf_pages(file: &mut File, size: u64, most: u32) -> Result<u32, String> {
    file.seek(SeekFrom::Start(0)).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let tail = usize::try_from(size.saturating_sub(PDF_TAIL)).unwrap_or(0);
    if find(&bytes[tail.min(bytes.len())..], b"%%EOF").is_none() {
        return Err("LibreOffice wrote a truncated PDF".into());
    }
    match count_pages(&bytes) {
        None | Some(0) => Err("LibreOffice wrote a PDF without pages".into()),
        Some(pages) if pages > most => Err(format!("the result has {pages} pages, at most {most} are allowed")),
        Some(pages) => Ok(pages),
    }
}

/// `/Count` of the page tree's root, found as PDF readers do: the cross-reference table that `startxref` points to, the
/// catalogue that the trailer names, its `/Pages` (ISO 32000-1, 7.5.5, 7.7.2, 7.7.3). LibreOffice writes plain tables.
fn count_pages(pdf: &[u8]) -> Option<u32> {
    let start = rfind(pdf, b"startxref")?;
    let table = number_after(pdf.get(start..)?, b"startxref")?;
    let trailer = pdf.get(usize::try_from(table).ok()?..)?;
    let trailer = trailer.get(find(trailer, b"trailer")?..)?;
    let catalogue = object(pdf, table, number_after(trailer, b"/Root")?)?;
    let pages = object(pdf, table, number_after(catalogue, b"/Pages")?)?;
    u32::try_from(number_after(pages, b"/Count")?).ok()
}

/// The bytes of object `wanted`, up to its `endobj`.
fn object(pdf: &[u8], table: u64, wanted: u64) -> Option<&[u8]> {
    let section = pdf.get(usize::try_from(table).ok()?..)?;
    let (first, after) = number(skip_word(section, b"xref")?)?;
    let (count, entries) = number(after)?;
    let index = wanted.checked_sub(first).filter(|index| *index < count)?;
    let entries = entries.get(entries.iter().position(u8::is_ascii_digit)?..)?;
    // Each entry has 20 bytes (7.5.4).
    let entry = entries.get(usize::try_from(index).ok()? * 20..)?;
    let (offset, _) = number(entry)?;
    let start = pdf.get(usize::try_from(offset).ok()?..)?;
    start.get(..find(start, b"endobj")?)
}

fn skip_word<'a>(bytes: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    bytes.get(find(bytes, word)? + word.len()..)
}

fn number_after(bytes: &[u8], word: &[u8]) -> Option<u64> {
    number(skip_word(bytes, word)?).map(|(value, _)| value)
}

/// The number after leading white space, and the bytes behind it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let bytes = bytes.trim_ascii_start();
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    let value = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((value, &bytes[end..]))
}

fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).position(|window| window == word)
}

fn rfind(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).rposition(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: [&str; 3] = [
        "%PDF-1.6\n",
        "1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n",
        "2 0 obj\n<</Type/Pages/Count 3>>\nendobj\n",
    ];

    fn pdf() -> Vec<u8> {
        let (first, second) = (BODY[0].len(), BODY[0].len() + BODY[1].len());
        let body = BODY.concat();
        let table = format!("xref\n0 3\n0000000000 65535 f \n{first:010} 00000 n \n{second:010} 00000 n \n");
        let trailer = format!("trailer\n<</Size 3/Root 1 0 R>>\nstartxref\n{}\n%%EOF\n", body.len());
        [body, table, trailer].concat().into_bytes()
    }

    fn check(bytes: &[u8], format: Format) -> Result<u32, String> {
        let place = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(place.path(), bytes).unwrap();
        verify_output(place.path(), format, 1000, 10)
    }

    #[test]
    fn pages_are_counted() {
        assert_eq!(check(&pdf(), Format::Pdf), Ok(3));
    }

    #[test]
    fn truncated_empty_wrong_and_too_large_files_are_refused() {
        assert!(check(&pdf()[..100], Format::Pdf).unwrap_err().contains("truncated"));
        assert!(check(b"", Format::Pdf).unwrap_err().contains("not pdf"));
        assert!(check(&[0; 1001], Format::Txt).unwrap_err().contains("at most 1000"));
        assert!(check(b"<html>", Format::Docx).is_err());
        let lying = [&pdf()[..], b"startxref\n99999\n%%EOF"].concat();
        assert!(check(&lying, Format::Pdf).unwrap_err().contains("without pages"));
    }
}
