//! Names the result files, and packs several of them into a ZIP archive.

use std::collections::HashSet;

use bytes::Bytes;
use pipeline::Content;
use pipeline::documents::{Format, Named};

use super::natural_order::natural_order;
use super::parameters::{Dialect, Parameters};
use crate::documents::office::Writer;

/// The result files of one document.
pub struct ConvertedDocument {
    /// Its name without the extension.
    pub stem: String,
    /// One file, or one image per page.
    pub files: Vec<Bytes>,
}

/// Names the files: `letter`, or `letter-1`, `letter-2`, … if a document has several.
pub fn named(converted: Vec<ConvertedDocument>, parameters: &Parameters) -> Vec<Named> {
    let mut files: Vec<Named> = converted.into_iter().flat_map(one_named).collect();
    if parameters.dialect == Dialect::Gotenberg {
        files.sort_by(|one, other| natural_order(&one.0, &other.0));
    }
    files
}

fn one_named(converted: ConvertedDocument) -> Vec<Named> {
    let ConvertedDocument { stem, mut files } = converted;
    match files.len() {
        1 => vec![(stem, files.remove(0))],
        _ => files.into_iter().zip(1..).map(|(file, page)| (format!("{stem}-{page}"), file)).collect(),
    }
}

/// One file as it is, several as a ZIP archive.
pub fn pack(mut files: Vec<Named>, to: Format) -> Content {
    if files.len() == 1
        && let Some((_, file)) = files.pop()
    {
        return Content::inline(to.media_type(), file);
    }
    Content::inline("application/zip", archive(files, to))
}

/// A ZIP archive in which all names are distinct.
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
        // Images and PDFs are already compressed.
        writer.add_stored(&name, &file);
    }
    writer.finish()
}
