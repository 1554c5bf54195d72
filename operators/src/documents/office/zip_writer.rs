//! ZIP writer: copies entries of another package without inflating them, and adds new ones.
//!
//! The output is deterministic: new entries have no time of modification, so that the same template and data give the
//! same bytes.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::package::Package;
use super::zip_reader::{Entry, Method};

/// Higher levels gain little, and a client waits for the document.
const LEVEL: u32 = 4;
/// 1 January 1980, the start of DOS time.
const NO_TIME: u32 = 0x0021_0000;
/// Flag: names are UTF-8.
const UTF8_NAMES: u16 = 1 << 11;
const VERSION: u16 = 20;

/// A package being written.
#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
    directory: Vec<u8>,
    count: u16,
}

impl Writer {
    /// Bytes written so far, without the directory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Copies an entry with its compressed bytes.
    pub fn copy(&mut self, package: &Package, entry: &Entry) {
        let fields = Fields { method: entry.method, crc: entry.crc, size: entry.size, modified: entry.modified };
        self.put(&entry.name, fields, package.packed(entry));
    }

    /// Adds an entry, deflated if that makes it smaller.
    pub fn add(&mut self, name: &str, content: &[u8]) {
        let crc = crc32fast::hash(content);
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let mut encoder = DeflateEncoder::new(Vec::with_capacity(content.len() / 4), Compression::new(LEVEL));
        let packed = encoder.write_all(content).and_then(|()| encoder.finish()).unwrap_or_default();
        let fields = |method| Fields { method, crc, size, modified: NO_TIME };
        if !packed.is_empty() && packed.len() < content.len() {
            self.put(name, fields(Method::Deflate), &packed);
        } else {
            self.put(name, fields(Method::Stored), content);
        }
    }

    /// Adds an entry uncompressed: an OpenDocument file must have its media type in plain text in its first bytes.
    pub fn add_stored(&mut self, name: &str, content: &[u8]) {
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let fields = Fields { method: Method::Stored, crc: crc32fast::hash(content), size, modified: NO_TIME };
        self.put(name, fields, content);
    }

    fn put(&mut self, name: &str, fields: Fields, packed: &[u8]) {
        let header_at = u32::try_from(self.out.len()).unwrap_or(u32::MAX);
        let common = fields.common(name, packed.len());
        self.out.extend_from_slice(b"PK\x03\x04");
        self.out.extend_from_slice(&common);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(packed);
        self.directory.extend_from_slice(b"PK\x01\x02");
        self.directory.extend_from_slice(&VERSION.to_le_bytes());
        self.directory.extend_from_slice(&common);
        // No comment, first volume, no attributes.
        self.directory.extend_from_slice(&[0; 10]);
        self.directory.extend_from_slice(&header_at.to_le_bytes());
        self.directory.extend_from_slice(name.as_bytes());
        self.count = self.count.saturating_add(1);
    }

    /// Finishes the package.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let (at, length) = (self.out.len() as u32, self.directory.len() as u32);
        self.out.append(&mut self.directory);
        self.out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        self.out.extend_from_slice(&self.count.to_le_bytes());
        self.out.extend_from_slice(&self.count.to_le_bytes());
        self.out.extend_from_slice(&length.to_le_bytes());
        self.out.extend_from_slice(&at.to_le_bytes());
        self.out.extend_from_slice(&[0, 0]);
        self.out
    }
}

/// The fields that both headers of an entry share.
#[derive(Clone, Copy)]
struct Fields {
    method: Method,
    crc: u32,
    size: u32,
    modified: u32,
}

impl Fields {
    /// From the version needed to the length of the extra field: the same 26 bytes in both headers.
    fn common(self, name: &str, packed: usize) -> Vec<u8> {
        let method: u16 = if self.method == Method::Deflate { 8 } else { 0 };
        let mut bytes = Vec::with_capacity(26);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&UTF8_NAMES.to_le_bytes());
        bytes.extend_from_slice(&method.to_le_bytes());
        bytes.extend_from_slice(&self.modified.to_le_bytes());
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.extend_from_slice(&(packed as u32).to_le_bytes());
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes
    }
}
