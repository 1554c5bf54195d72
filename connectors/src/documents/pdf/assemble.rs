//! Pages of PDFs as one PDF (ISO 32000-1, 7.7: catalog, page tree).
//!
//! Pages come with all that they refer to, except other pages: what is not asked for does not hide in the file. Of the
//! catalogs, what says that a file is PDF/A (metadata and output intents) comes from the first; outlines, forms and named
//! places go.

use std::collections::{HashMap, HashSet};

use lopdf::{Dictionary, Document, Object, ObjectId, Stream, StringFormat};
use sha2::{Digest as _, Sha256};

use super::super::protocol::Fault;

/// What a page may have from the tree above it (table 30).
const INHERITED: [&[u8]; 4] = [b"Resources", b"MediaBox", b"CropBox", b"Rotate"];
/// Kept of the first file's catalog.
const OF_CATALOG: [&[u8]; 3] = [b"Metadata", b"OutputIntents", b"Lang"];
/// Levels of a page tree, and of arrays and dictionaries in each other.
const DEEPEST: usize = 64;

/// A PDF that can be taken apart.
pub(super) struct Source {
    pub document: Document,
    /// In their order.
    pub pages: Vec<ObjectId>,
    /// SHA-256 of the file.
    digest: [u8; 32],
}

impl Source {
    /// Reads the file of this number.
    ///
    /// # Errors
    /// If it is no PDF, or behind a password.
    pub(super) fn read(number: usize, file: &[u8]) -> Result<Self, (Fault, String)> {
        let unreadable =
            |why: lopdf::Error| (Fault::PdfUnreadable, format!("document {} cannot be taken apart: {why}", number + 1));
        let document = Document::load_mem(file).map_err(unreadable)?;
        if document.is_encrypted() {
            let why = format!("document {} is behind a password: send it without one", number + 1);
            return Err((Fault::PdfEncrypted, why));
        }
        Ok(Self::of(document, Sha256::digest(file).into()))
    }

    pub(super) fn of(document: Document, digest: [u8; 32]) -> Self {
        let pages = document.get_pages().into_values().collect();
        Self { document, pages, digest }
    }
}

/// The pages of each part, one after the other.
pub(super) fn assemble(parts: &[(&Source, Vec<ObjectId>)]) -> Document {
    let mut made = Document::with_version("1.7");
    let tree = made.new_object_id();
    let mut kids: Vec<Object> = Vec::new();
    let mut catalog = Dictionary::new();
    let mut identity = Sha256::new();
    for (number, (source, pages)) in parts.iter().enumerate() {
        let mut copy = Copy::new(source, pages, &mut made);
        identity.update(source.digest);
        for page in pages {
            identity.update(page.0.to_le_bytes());
            kids.push(copy.page(*page, tree));
        }
        if number == 0
            && let Ok(first) = source.document.catalog()
        {
            let kept = OF_CATALOG.iter().filter_map(|key| Some((key.to_vec(), first.get(key).ok()?)));
            catalog = kept.map(|(key, value)| (key, copy.object(value, 0))).collect();
        }
        copy.follow();
    }
    let count = i64::try_from(kids.len()).unwrap_or(i64::MAX);
    made.set_object(tree, lopdf::dictionary! { "Type" => "Pages", "Count" => count, "Kids" => kids });
    catalog.set("Type", Object::Name(b"Catalog".to_vec()));
    catalog.set("Pages", tree);
    let catalog = made.add_object(catalog);
    made.trailer.set("Root", catalog);
    // PDF/A wants an identity; of the same pages it is the same.
    let identity = Object::String(identity.finalize()[..16].to_vec(), StringFormat::Hexadecimal);
    made.trailer.set("ID", vec![identity.clone(), identity]);
    made.compress();
    made
}

/// Copies objects of one PDF into another, each once.
struct Copy<'c> {
    source: &'c Source,
    /// All pages of the source that are not wanted.
    left_out: HashSet<ObjectId>,
    into: &'c mut Document,
    /// Where objects went.
    places: HashMap<ObjectId, ObjectId>,
    /// Those that have a place and are not copied yet.
    waiting: Vec<ObjectId>,
    /// Pages that are copied.
    given: HashSet<ObjectId>,
}

impl<'c> Copy<'c> {
    fn new(source: &'c Source, pages: &[ObjectId], into: &'c mut Document) -> Self {
        let wanted: HashSet<_> = pages.iter().copied().collect();
        let left_out = source.pages.iter().copied().filter(|page| !wanted.contains(page)).collect();
        Self { source, left_out, into, places: HashMap::new(), waiting: Vec::new(), given: HashSet::new() }
    }

    /// Gives a page its place, complete and below `tree`; another one each time it comes.
    fn page(&mut self, page: ObjectId, tree: ObjectId) -> Object {
        let place = if self.given.insert(page) { self.place(page) } else { self.into.new_object_id() };
        let mut copy = Dictionary::new();
        if let Ok(own) = self.source.document.get_dictionary(page) {
            let inherited = inherited(&self.source.document, own);
            for (key, value) in inherited.iter().map(|(key, value)| (*key, *value)).chain(of(own)) {
                // A page without its tags: the tree of them is not copied.
                if key != b"Parent" && key != b"StructParents" {
                    let value = self.object(value, 0);
                    copy.set(key, value);
                }
            }
        }
        copy.set("Parent", tree);
        self.into.set_object(place, copy);
        Object::Reference(place)
    }

    /// Copies what is referred to, and what that refers to.
    fn follow(&mut self) {
        let source = self.source;
        while let Some(id) = self.waiting.pop() {
            if self.given.contains(&id) {
                continue;
            }
            let Ok(object) = source.document.get_object(id) else { continue };
            let copy = self.object(object, 0);
            let place = self.place(id);
            self.into.set_object(place, copy);
        }
    }

    fn place(&mut self, id: ObjectId) -> ObjectId {
        if let Some(place) = self.places.get(&id) {
            return *place;
        }
        let place = self.into.new_object_id();
        self.places.insert(id, place);
        self.waiting.push(id);
        place
    }

    fn object(&mut self, object: &Object, depth: usize) -> Object {
        match object {
            _ if depth > DEEPEST => Object::Null,
            Object::Reference(id) if self.leads_elsewhere(*id) => Object::Null,
            Object::Reference(id) => Object::Reference(self.place(*id)),
            Object::Array(items) => Object::Array(items.iter().map(|item| self.object(item, depth + 1)).collect()),
            Object::Dictionary(dictionary) => Object::Dictionary(self.dictionary(dictionary, depth)),
            Object::Stream(stream) => {
                let dictionary = self.dictionary(&stream.dict, depth);
                // Programs look for what PDF/A says of itself without reading PDF.
                let plain = dictionary.has_type(b"Metadata");
                Object::Stream(Stream::new(dictionary, stream.content.clone()).with_compression(!plain))
            }
            plain => plain.clone(),
        }
    }

    fn dictionary(&mut self, dictionary: &Dictionary, depth: usize) -> Dictionary {
        of(dictionary).map(|(key, value)| (key.to_vec(), self.object(value, depth + 1))).collect()
    }

    /// Whether a reference leads to pages that are not wanted, or to the root of everything.
    fn leads_elsewhere(&self, id: ObjectId) -> bool {
        let document = &self.source.document;
        let root =
            || document.get_dictionary(id).is_ok_and(|found| found.has_type(b"Pages") || found.has_type(b"Catalog"));
        self.left_out.contains(&id) || !document.objects.contains_key(&id) || root()
    }
}

fn of(dictionary: &Dictionary) -> impl Iterator<Item = (&[u8], &Object)> {
    dictionary.iter().map(|(key, value)| (key.as_slice(), value))
}

/// What a page has from the tree above it and not itself, the nearest first.
fn inherited<'d>(document: &'d Document, page: &'d Dictionary) -> HashMap<&'static [u8], &'d Object> {
    let mut found = HashMap::new();
    let mut node = page;
    for _ in 0..DEEPEST {
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
