//! Finishing PDFs: merge, split, set metadata, encrypt, in this order.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Longest password, in bytes: PDF readers ignore bytes after that.
pub const LONGEST_PASSWORD: usize = 127;

/// What to do with PDFs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// Merge all files into one, in their order.
    pub merge: bool,
    /// Split each file, or take some pages of it.
    pub split: Option<Split>,
    /// Entries of the document information dictionary (ISO 32000-1, 14.3.3), by name.
    pub info: BTreeMap<String, Entry>,
    /// Encrypt with passwords.
    pub lock: Option<Lock>,
}

/// How a PDF is split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Split {
    /// A file for every so many pages, at least one.
    Every(u32),
    /// Page ranges, counted from 1: a file for each range, or one file for all.
    Ranges {
        /// First and last page of each range.
        ranges: Vec<(u32, u32)>,
        /// Whether all ranges go into one file.
        unify: bool,
    },
}

/// An entry of the document information dictionary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A text; a date is a text in the date format of PDF.
    Text(String),
    /// One of the names that the standard defines.
    Name(String),
}

/// Passwords of a PDF, of at most [`LONGEST_PASSWORD`] bytes; at least one is not empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Opens the document; if empty, the document opens without a password.
    pub user: String,
    /// Allows every use of the document; if empty, the user password does.
    pub owner: String,
}

impl Finish {
    /// Whether there is anything to do with this number of files.
    #[must_use]
    pub fn is_needed(&self, files: usize) -> bool {
        (self.merge && files > 1) || self.split.is_some() || !self.info.is_empty() || self.lock.is_some()
    }
}

/// A file with its name without the extension.
pub type Named = (String, Bytes);

/// PDFs to finish.
#[derive(Clone, Debug)]
pub struct Finishing {
    /// In order.
    pub files: Vec<Named>,
    /// What to do with them.
    pub finish: Finish,
    /// After this the result is of no use.
    pub deadline: Instant,
}
