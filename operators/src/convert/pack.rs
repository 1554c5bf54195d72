//! Several files as one answer.

use std::collections::HashSet;

use bytes::Bytes;
use pipeline::Content;
use pipeline::documents::{Format, Named};

use super::gotenberg;
use super::wish::{Fields, Wish};
use crate::office::Writer;

/// What one document became.
pub struct Converted {
    /// Its name without the extension.
    pub stem: String,
    /// One file, or a picture per page.
    pub files: Vec<Bytes>,
}

/// The files with names of their own: `letter`, or `letter-1`, `letter-2`, … where there are several.
pub fn named(converted: Vec<Converted>, wish: &Wish) -> Vec<Named> {
    let mut files: Vec<Named> = converted.into_iter().flat_map(one_named).collect();
    if wish.fields == Fields::Gotenberg {
        files.sort_by(|one, other| gotenberg::order(&one.0, &other.0));
    }
    files
}

fn one_named(converted: Converted) -> Vec<Named> {
    let Converted { stem, mut files } = converted;
    match files.len() {
        1 => vec![(stem, files.remove(0))],
        _ => files.into_iter().zip(1..).map(|(file, page)| (format!("{stem}-{page}"), file)).collect(),
    }
}

/// One file as it is, several as an archive.
pub fn pack(mut files: Vec<Named>, to: Format) -> Content {
    if files.len() == 1
        && let Some((_, file)) = files.pop()
    {
        return Content::inline(to.media_type(), file);
    }
    Content::inline("application/zip", archive(files, to))
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
