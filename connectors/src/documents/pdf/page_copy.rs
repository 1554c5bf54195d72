//! Copies pages of PDFs into a new PDF: the base of merge and split (ISO 32000-1, 7.7: catalog, page tree).
//!
//! A page is copied with everything it refers to, except other pages: pages that were not requested must not be hidden
//! in the file. From the first catalog, the entries that make a file PDF/A (metadata and output intents) and its
//! language are copied; outlines, forms and named destinations are dropped.

use std::collections::{HashMap, HashSet};

use lopdf::{Dictionary, Document, Object, ObjectId, Stream, StringFormat};
use sha2::{Digest as _, Sha256};

use super::super::protocol::DocumentFault;

/// Entries that a page may inherit from its page tree (table 30).
const INHERITED: [&[u8]; 4] = [b"Resources", b"MediaBox", b"CropBox", b"Rotate"];
/// Entries copied from the first file's catalog.
const CATALOG_ENTRIES: [&[u8]; 3] = [b"Metadata", b"OutputIntents", b"Lang"];
/// Deepest page tree, and deepest nesting of arrays and dictionaries.
const MAX_DEPTH: usize = 64;

/// A parsed PDF to copy pages from.
pub(super) struct SourcePdf {
    pub document: Document,
    /// In page order.
    pub pages: Vec<ObjectId>,
    /// SHA-256 of the file.
    digest: [u8; 32],
}

impl SourcePdf {
    /// Parses the file with this number.
    ///
    /// # Errors
    /// If it is not a PDF, or encrypted.
    pub(super) fn read(number: usize, file: &[u8]) -> Result<Self, (DocumentFault, String)> {
        let unreadable = |why: lopdf::Error| {
            (DocumentFault::PdfUnreadable, format!("document {} cannot be parsed as PDF: {why}", number + 1))
        };
        let document = Document::load_mem(file).map_err(unreadable)?;
        if document.is_encrypted() {
            let why = format!("document {} is encrypted: remove its password before sending it", number + 1);
            return Err((DocumentFault::PdfEncrypted, why));
        }
        Ok(Self::of(document, Sha256::digest(file).into()))
    }

    pub(super) fn of(document: Document, digest: [u8; 32]) -> Self {
        let pages = document.get_pages().into_values().collect();
        Self { document, pages, digest }
    }
}

/// A new PDF with the pages of each part, one after the other.
pub(super) fn copy_pages(parts: &[(&SourcePdf, Vec<ObjectId>)]) -> Document {
    let mut target = Document::with_version("1.7");
    let tree = target.new_object_id();
    let mut kids: Vec<Object> = Vec::new();
    let mut catalog = Dictionary::new();
    let mut identity = Sha256::new();
    for (number, (source, pages)) in parts.iter().enumerate() {
        let mut copier = PageCopier::new(source, pages, &mut target);
        identity.update(source.digest);
        for page in pages {
            identity.update(page.0.to_le_bytes());
            kids.push(copier.page(*page, tree));
        }
        if number == 0
            && let Ok(first) = source.document.catalog()
        {
            let entries = CATALOG_ENTRIES.iter().filter_map(|key| Some((key.to_vec(), first.get(key).ok()?)));
            catalog = entries.map(|(key, value)| (key, copier.object(value, 0))).collect();
        }
        copier.copy_referenced();
    }
    let count = i64::try_from(kids.len()).unwrap_or(i64::MAX);
    target.set_object(tree, lopdf::dictionary! { "Type" => "Pages", "Count" => count, "Kids" => kids });
    catalog.set("Type", Object::Name(b"Catalog".to_vec()));
    catalog.set("Pages", tree);
    let catalog = target.add_object(catalog);
    target.trailer.set("Root", catalog);
    // PDF/A needs a file identifier; the same pages get the same one.
    let identity = Object::String(identity.finalize()[..16].to_vec(), StringFormat::Hexadecimal);
    target.trailer.set("ID", vec![identity.clone(), identity]);
    target.compress();
    target
}

/// Copies objects of one PDF into another, each once.
struct PageCopier<'c> {
    source: &'c SourcePdf,
    /// All pages of the source that are not copied.
    excluded: HashSet<ObjectId>,
    target: &'c mut Document,
    /// New ids by the ids in the source.
    ids: HashMap<ObjectId, ObjectId>,
    /// Objects that have a new id and are not copied yet.
    pending: Vec<ObjectId>,
    /// Pages that are copied already.
    copied_pages: HashSet<ObjectId>,
}

impl<'c> PageCopier<'c> {
    fn new(source: &'c SourcePdf, pages: &[ObjectId], target: &'c mut Document) -> Self {
        let wanted: HashSet<_> = pages.iter().copied().collect();
        let excluded = source.pages.iter().copied().filter(|page| !wanted.contains(page)).collect();
        Self { source, excluded, target, ids: HashMap::new(), pending: Vec::new(), copied_pages: HashSet::new() }
    }

    /// Copies a page below `tree`, with its inherited entries. A page that is requested again is copied again.
    fn page(&mut self, page: ObjectId, tree: ObjectId) -> Object {
        let id = if self.copied_pages.insert(page) { self.new_id(page) } else { self.target.new_object_id() };
        let mut copy = Dictionary::new();
        if let Ok(own) = self.source.document.get_dictionary(page) {
            let inherited = inherited(&self.source.document, own);
            for (key, value) in inherited.iter().map(|(key, value)| (*key, *value)).chain(entries(own)) {
                // Structure tags are dropped: the structure tree is not copied.
                if key != b"Parent" && key != b"StructParents" {
                    let value = self.object(value, 0);
                    copy.set(key, value);
                }
            }
        }
        copy.set("Parent", tree);
        self.target.set_object(id, copy);
        Object::Reference(id)
    }

    /// Copies every object that the copied ones refer to, directly or not.
    fn copy_referenced(&mut self) {
        let source = self.source;
        while let Some(id) = self.pending.pop() {
            if self.copied_pages.contains(&id) {
                continue;
            }
            let Ok(object) = source.document.get_object(id) else { continue };
            let copy = self.object(object, 0);
            let new_id = self.new_id(id);
            self.target.set_object(new_id, copy);
        }
    }

    fn new_id(&mut self, id: ObjectId) -> ObjectId {
        if let Some(new_id) = self.ids.get(&id) {
            return *new_id;
        }
        let new_id = self.target.new_object_id();
        self.ids.insert(id, new_id);
        self.pending.push(id);
        new_id
    }

    fn object(&mut self, object: &Object, depth: usize) -> Object {
        match object {
            _ if depth > MAX_DEPTH => Object::Null,
            Object::Reference(id) if self.is_excluded(*id) => Object::Null,
            Object::Reference(id) => Object::Reference(self.new_id(*id)),
            Object::Array(items) => Object::Array(items.iter().map(|item| self.object(item, depth + 1)).collect()),
            Object::Dictionary(dictionary) => Object::Dictionary(self.dictionary(dictionary, depth)),
            Object::Stream(stream) => {
                let dictionary = self.dictionary(&stream.dict, depth);
                // Programs search for the PDF/A metadata without parsing the PDF, so it is not compressed.
                let plain = dictionary.has_type(b"Metadata");
                Object::Stream(Stream::new(dictionary, stream.content.clone()).with_compression(!plain))
            }
            plain => plain.clone(),
        }
    }

    fn dictionary(&mut self, dictionary: &Dictionary, depth: usize) -> Dictionary {
        entries(dictionary).map(|(key, value)| (key.to_vec(), self.object(value, depth + 1))).collect()
    }

    /// Whether a reference leads to an excluded page, to a page tree, to a catalog, or nowhere.
    fn is_excluded(&self, id: ObjectId) -> bool {
        let document = &self.source.document;
        let root =
            || document.get_dictionary(id).is_ok_and(|found| found.has_type(b"Pages") || found.has_type(b"Catalog"));
        self.excluded.contains(&id) || !document.objects.contains_key(&id) || root()
    }
}

fn entries(dictionary: &Dictionary) -> impl Iterator<Item = (&[u8], &Object)> {
    dictionary.iter().map(|(key, value)| (key.as_slice(), value))
}

/// The entries that a page inherits from the tree above it; the nearest ancestor wins.
fn inherited<'d>(document: &'d Document, page: &'d Dictionary) -> HashMap<&'static [u8], &'d Object> {
    let mut found = HashMap::new();
    let mut node = page;
    for _ in 0..MAX_DEPTH {
        let Ok(parent) = node.get(b"Parent").and_then(Object::as_reference).and_then(|id| document.get_dictionary(id))
        else {
            break;
        };
        for key in INHERITED {
            if let (false, Ok(value)) = (page.has(key), parent.get(key)) {
                found.entry(key).or_insert(value);
            }
        }
        node = parent;
    }
    found
}
