//! What a PDF says of itself: the document information dictionary (ISO 32000-1, 14.3.3).

use std::collections::BTreeMap;

use lopdf::{Dictionary, Document, Object, text_string};
use pipeline::documents::Entry;

/// Sets the entries, and leaves others as they are.
pub(super) fn write(entries: &BTreeMap<String, Entry>, document: &mut Document) {
    if entries.is_empty() {
        return;
    }
    let mut info = old(document).unwrap_or_default();
    for (name, entry) in entries {
        let value = match entry {
            Entry::Text(text) => text_string(text),
            Entry::Name(name) => Object::Name(name.as_bytes().to_vec()),
        };
        info.set(name.as_bytes(), value);
    }
    let info = document.add_object(info);
    document.trailer.set("Info", info);
    // It would go on saying what was.
    if let Ok(catalog) = document.catalog_mut() {
        catalog.remove(b"Metadata");
    }
}

fn old(document: &Document) -> Option<Dictionary> {
    let info = document.trailer.get(b"Info").ok()?;
    document.dereference(info).ok()?.1.as_dict().ok().cloned()
}
