//! Several files as one answer: a PDF of all pages, or a ZIP archive.

use std::collections::HashSet;

use bytes::Bytes;
use pipeline::documents::Format;
use pipeline::{Content, Rejection};

use super::merge::merge;
use super::wish::Wish;
use crate::office::Writer;

/// What one document became.
pub struct Converted {
    /// Its name without the extension.
    pub stem: String,
    /// One file, or a picture per page.
    pub files: Vec<Bytes>,
}

/// One file as it is; several merged where that is wished, or else as an archive.
///
/// # Errors
/// 422 if PDFs cannot be merged.
pub fn pack(converted: Vec<Converted>, wish: &Wish) -> Result<Content, Rejection> {
    let count: usize = converted.iter().map(|converted| converted.files.len()).sum();
    if wish.merge && count > 1 && wish.to == Format::Pdf {
        let files: Vec<Bytes> = converted.into_iter().flat_map(|converted| converted.files).collect();
        return Ok(Content::inline(Format::Pdf.media_type(), merge(&files)?));
    }
    let mut converted = converted;
    if count == 1
        && let Some(file) = converted.iter_mut().find_map(|converted| converted.files.pop())
    {
        return Ok(Content::inline(wish.to.media_type(), file));
    }
    Ok(Content::inline("application/zip", archive(converted, wish.to)))
}

/// An archive in which no two files have one name.
fn archive(converted: Vec<Converted>, to: Format) -> Vec<u8> {
    let mut writer = Writer::default();
    let mut taken = HashSet::new();
    for Converted { stem, files } in converted {
        let single = files.len() == 1;
        for (page, file) in files.iter().enumerate() {
            let base = if single { stem.clone() } else { format!("{stem}-{}", page + 1) };
            let mut name = format!("{base}.{to}");
            for number in 2_u32.. {
                if taken.insert(name.clone()) {
                    break;
                }
                name = format!("{base} ({number}).{to}");
            }
            // Pictures and PDFs are packed already.
            writer.add_stored(&name, file);
        }
    }
    writer.finish()
}
