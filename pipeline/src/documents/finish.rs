//! What is done to PDFs after they were made: merged, split, described, locked, in this order.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Longest password, in bytes: readers cut off what is beyond.
pub const LONGEST_PASSWORD: usize = 127;

/// What shall be done to PDFs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// Several become one, in their order.
    pub merge: bool,
    /// One becomes several, or some pages of it.
    pub split: Option<Split>,
    /// What it says of itself (ISO 32000-1, 14.3.3), by the names of entries.
    pub info: BTreeMap<String, Entry>,
    /// Who may open it.
    pub lock: Option<Lock>,
}

/// How a PDF is split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Split {
    /// As many pages to a file, at least one.
    Every(u32),
    /// These pages, first and last of each range counted from 1: a file for each range, or one for all.
    Ranges {
        /// First and last page.
        ranges: Vec<(u32, u32)>,
        /// Whether they go into one file.
        unify: bool,
    },
}

/// An entry of what a PDF says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A text; a date in the form of PDF is one.
    Text(String),
    /// One of the words that the standard gives.
    Name(String),
}

/// Passwords of a PDF, of at most [`LONGEST_PASSWORD`] bytes; one of them is not empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Opens the document; anybody can where it is empty.
    pub user: String,
    /// Opens it for every use; the user's where it is empty.
    pub owner: String,
}

impl Finish {
    /// Whether there is anything to do to as many files.
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
    /// How.
    pub finish: Finish,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}
