//! A package in memory: finds entries by name and inflates them within a budget.

use std::collections::HashMap;

use bytes::Bytes;
use pipeline::Rejection;

use super::inflate::{Budget, inflate};
use super::limits::Limits;
use super::xml;
use super::zip_reader::{Entry, directory};

/// An opened package. Shares the bytes it was opened from and inflates entries on demand.
#[derive(Clone, Debug)]
pub struct Package {
    bytes: Bytes,
    entries: Vec<Entry>,
    /// By lower-case name: part names are case-insensitive.
    places: HashMap<String, usize>,
}

impl Package {
    /// Reads and checks the ZIP directory against the [`Limits`].
    ///
    /// # Errors
    /// 413 `file_too_large`; 422 `package_corrupt`, `package_unsafe`, `package_encrypted` or `too_many_parts`.
    pub fn open(bytes: Bytes, limits: &Limits) -> Result<Self, Rejection> {
        if bytes.len() as u64 > limits.file.0 {
            let detail = format!("the file has {} bytes; the limit is {}", bytes.len(), limits.file.0);
            return Err(Rejection::too_large("file_too_large", detail));
        }
        let entries = directory(&bytes, limits)?;
        let name = |(place, entry): (usize, &Entry)| (entry.name.to_ascii_lowercase(), place);
        let places = entries.iter().enumerate().map(name).collect();
        Ok(Self { bytes, entries, places })
    }

    /// All entries, in the order of the directory.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of that name, case-insensitively.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.places.get(&name.to_ascii_lowercase()).map(|place| &self.entries[*place])
    }

    /// The content of an entry.
    ///
    /// # Errors
    /// 422 if it is damaged (`package_corrupt`) or exceeds the budget (`part_too_large`, `package_bomb`,
    /// `package_too_large`).
    pub fn read(&self, entry: &Entry, budget: &mut Budget) -> Result<Vec<u8>, Rejection> {
        let mut content = Vec::new();
        inflate(&self.bytes, entry, budget, |block| content.extend_from_slice(block))?;
        Ok(content)
    }

    /// The content of an entry as text.
    ///
    /// # Errors
    /// As [`read`](Self::read), and 422 `part_malformed` for text that is not UTF-8.
    pub fn read_text(&self, entry: &Entry, budget: &mut Budget) -> Result<String, Rejection> {
        let content = self.read(entry, budget)?;
        xml::text_of(&content).map(str::to_owned).map_err(|why| malformed(&entry.name, &why))
    }

    /// The compressed bytes of an entry, as in the file.
    pub(super) fn packed(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.data.clone()]
    }
}

/// 422 for a part whose XML is invalid or not allowed.
pub(super) fn malformed(part: &str, why: &xml::XmlError) -> Rejection {
    let code = match why {
        xml::XmlError::Doctype { .. } => "part_doctype",
        xml::XmlError::Depth { .. } => "part_too_deep",
        _ => "part_malformed",
    };
    Rejection::unusable(code, format!("part {part:?} is not valid: {why}"))
}
