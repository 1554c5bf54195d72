//! Several files as one answer: finished PDFs, or a ZIP archive.

use std::collections::HashSet;

use bytes::Bytes;
use pipeline::documents::Format;
use pipeline::{Content, Rejection};

use super::gotenberg;
use super::pdf::Named;
use super::wish::{Fields, Wish};
use crate::office::Writer;

/// What one document became.
pub struct Converted {
    /// Its name without the extension.
    pub stem: String,
    /// One file, or a picture per page.
    pub files: Vec<Bytes>,
}

/// One file as it is, several as an archive; PDFs finished as that is wished.
///
/// # Errors
/// 422 if PDFs cannot be taken apart.
pub fn pack(converted: Vec<Converted>, wish: &Wish) -> Result<Content, Rejection> {
    let mut files: Vec<Named> = converted.into_iter().flat_map(named).collect();
    if wish.fields == Fields::Gotenberg {
        files.sort_by(|one, other| gotenberg::order(&one.0, &other.0));
    }
    let mut files = if wish.to == Format::Pdf { wish.finish.apply(files)? } else { files };
    if files.len() == 1
        && let Some((_, file)) = files.pop()
    {
        return Ok(Content::inline(wish.to.media_type(), file));
    }
    Ok(Content::inline("application/zip", archive(files, wish.to)))
}

/// `letter`, or `letter-1`, `letter-2`, … where there are several.
fn named(converted: Converted) -> Vec<Named> {
    let Converted { stem, mut files } = converted;
    match files.len() {
        1 => vec![(stem, files.remove(0))],
        _ => files.into_iter().zip(1..).map(|(file, page)| (format!("{stem}-{page}"), file)).collect(),
    }
}

/// An archive in which no two files have one name.
fn archive(files: Vec<Named>, to: Format) -> Vec<u8> {
    let mut writer = Writer::default();
    let mut taken = HashSet::new();
    for (stem, file) in files {
        let mut name = format!("{stem}.{to}");
        for number in 2_u32.. {
            if taken.insert(name.clone()) {
                break;
            }
            name = format!("{stem} ({number}).{to}");
        }
        // Pictures and PDFs are packed already.
        writer.add_stored(&name, &file);
    }
    writer.finish()
}
