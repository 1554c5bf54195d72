//! PDFs one after the other as one PDF (ISO 32000-1, 7.7: catalog, page tree).
//!
//! Pages come with all that they refer to. Of the catalogs, what says that a file is PDF/A (metadata and output intents)
//! comes from the first; outlines, forms and named places go.

use std::collections::BTreeMap;

use bytes::Bytes;
use lopdf::{Dictionary, Document, Object, ObjectId};
use pipeline::Rejection;

/// What a page may have from the tree above it (table 30).
const INHERITED: [&[u8]; 4] = [b"Resources", b"MediaBox", b"CropBox", b"Rotate"];
/// Kept of the first file's catalog.
const OF_CATALOG: [&[u8]; 3] = [b"Metadata", b"OutputIntents", b"Lang"];
/// Levels of a page tree.
const DEEPEST: usize = 64;

/// # Errors
/// 422 `pdf_unreadable` if a file is no PDF that can be taken apart.
pub fn merge(files: &[Bytes]) -> Result<Vec<u8>, Rejection> {
    let mut merged = Document::with_version("1.7");
    let mut pages: Vec<ObjectId> = Vec::new();
    let mut catalog = Dictionary::new();
    let mut objects: BTreeMap<ObjectId, Object> = BTreeMap::new();
    let mut next = 1;
    for (number, file) in files.iter().enumerate() {
        let unreadable = |why: lopdf::Error| {
            Rejection::unusable("pdf_unreadable", format!("document {} cannot be merged: {why}", number + 1))
        };
        let mut document = Document::load_mem(file).map_err(unreadable)?;
        if document.is_encrypted() {
            let detail = format!("document {} is encrypted: send it without a password", number + 1);
            return Err(Rejection::unusable("pdf_encrypted", detail));
        }
        document.renumber_objects_with(next);
        next = document.max_id + 1;
        let of_this: Vec<ObjectId> = document.get_pages().into_values().collect();
        for page in &of_this {
            let inherited = inherited(&document, *page);
            let page = document.get_dictionary_mut(*page).map_err(unreadable)?;
            for (key, value) in inherited {
                page.set(key, value);
            }
        }
        if number == 0
            && let Ok(first) = document.catalog()
        {
            catalog = OF_CATALOG.iter().filter_map(|key| Some((key.to_vec(), first.get(key).ok()?.clone()))).collect();
        }
        pages.extend(of_this);
        objects.extend(document.objects);
    }
    merged.objects = objects;
    merged.max_id = next - 1;
    bind(&mut merged, catalog, &pages);
    merged.prune_objects();
    merged.renumber_objects();
    merged.compress();
    let mut bytes = Vec::new();
    merged.save_to(&mut bytes).map_err(|why| Rejection::internal(format!("the merged PDF was not written: {why}")))?;
    Ok(bytes)
}

/// What a page has from the tree above it and not itself.
fn inherited(document: &Document, page: ObjectId) -> Vec<(Vec<u8>, Object)> {
    let mut found: Vec<(Vec<u8>, Object)> = Vec::new();
    let Ok(mut node) = document.get_dictionary(page) else { return found };
    let own: Vec<&[u8]> = INHERITED.into_iter().filter(|key| node.has(key)).collect();
    for _ in 0..DEEPEST {
        let Ok(parent) = node.get(b"Parent").and_then(Object::as_reference).and_then(|id| document.get_dictionary(id))
        else {
            break;
        };
        for key in INHERITED {
            let is_known = own.contains(&key) || found.iter().any(|(known, _)| known == key);
            if let (false, Ok(value)) = (is_known, parent.get(key)) {
                found.push((key.to_vec(), value.clone()));
            }
        }
        node = parent;
    }
    found
}

/// Puts all pages under one tree, and that under one catalog.
fn bind(merged: &mut Document, mut catalog: Dictionary, pages: &[ObjectId]) {
    let tree = merged.new_object_id();
    for page in pages {
        if let Ok(page) = merged.get_dictionary_mut(*page) {
            page.set("Parent", tree);
            // It would refer to a tree of tags that is not there.
            page.remove(b"StructParents");
        }
    }
    let mut root = Dictionary::new();
    root.set("Type", Object::Name(b"Pages".to_vec()));
    root.set("Count", i64::try_from(pages.len()).unwrap_or(i64::MAX));
    root.set("Kids", pages.iter().map(|page| Object::Reference(*page)).collect::<Vec<_>>());
    merged.set_object(tree, Object::Dictionary(root));
    catalog.set("Type", Object::Name(b"Catalog".to_vec()));
    catalog.set("Pages", tree);
    let catalog = merged.add_object(catalog);
    merged.trailer.set("Root", catalog);
}
