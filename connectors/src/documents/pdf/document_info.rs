//! PDF metadata: the document information dictionary (ISO 32000-1, 14.3.3).

use std::collections::BTreeMap;

use lopdf::{Dictionary, Document, Object, text_string};
use pipeline::documents::Entry;

/// Sets these entries and leaves others unchanged.
pub(super) fn set_document_info(entries: &BTreeMap<String, Entry>, document: &mut Document) {
    if entries.is_empty() {
        return;
    }
    let mut info = current_info(document).unwrap_or_default();
    for (name, entry) in entries {
        let value = match entry {
            Entry::Text(text) => text_string(text),
            Entry::Name(name) => Object::Name(name.as_bytes().to_vec()),
        };
        info.set(name.as_bytes(), value);
    }
    let info = document.add_object(info);
    document.trailer.set("Info", info);
    // The XMP metadata would still have the old values.
    if let Ok(catalog) = document.catalog_mut() {
        catalog.remove(b"Metadata");
    }
}

fn current_info(document: &Document) -> Option<Dictionary> {
    let info = document.trailer.get(b"Info").ok()?;
    document.dereference(info).ok()?.1.as_dict().ok().cloned()
}
