//! What a folder's earlier runs have sent: one JSON line per file, appended and synced as each is answered.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// A file as it was when it was sent; a changed file is a new one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Entry {
    target: String,
    file: String,
    bytes: u64,
    modified_ms: u128,
}

/// The journal of one folder and target.
pub struct Journal {
    file: File,
    target: String,
    sent: HashSet<Entry>,
}

impl Journal {
    /// Reads the journal, or begins one.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path, target: &str) -> anyhow::Result<Self> {
        let context = || format!("cannot use the journal {}", path.display());
        let file = OpenOptions::new().create(true).append(true).read(true).open(path).with_context(context)?;
        let mut sent = HashSet::new();
        for line in BufReader::new(&file).lines() {
            // A line cut short by a crash names a file whose answer may be lost: it is sent again.
            if let Ok(entry) = serde_json::from_str(&line.with_context(context)?) {
                sent.insert(entry);
            }
        }
        Ok(Self { file, target: target.to_owned(), sent })
    }

    /// Whether the file was sent as it is now.
    pub fn has(&self, file: &Path) -> bool {
        self.entry(file).is_ok_and(|entry| self.sent.contains(&entry))
    }

    /// Notes a file as sent.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn add(&mut self, file: &Path) -> anyhow::Result<()> {
        let entry = self.entry(file)?;
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        self.file.write_all(&line).context("cannot write the journal")?;
        self.file.sync_data().context("cannot write the journal")?;
        self.sent.insert(entry);
        Ok(())
    }

    fn entry(&self, file: &Path) -> anyhow::Result<Entry> {
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Entry {
            target: self.target.clone(),
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: metadata.len(),
            modified_ms: modified.as_millis(),
        })
    }
}
