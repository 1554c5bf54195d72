//! The journal of a folder: one JSON line per sent file, appended and synced when its answer arrives.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::answers::Answers;

/// A file as it was when it was sent. A changed file is sent again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Entry {
    target: String,
    file: String,
    bytes: u64,
    modified_ms: u64,
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    entry: Entry,
    /// The name of the stored answer, if it was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    saved: Option<String>,
}

/// The journal of one folder and target.
pub struct Journal {
    file: File,
    target: String,
    sent: HashMap<Entry, Option<String>>,
}

impl Journal {
    /// Opens the journal, creating it if it is missing.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path, target: &str) -> anyhow::Result<Self> {
        let context = || format!("cannot use the journal {}", path.display());
        let file = OpenOptions::new().create(true).append(true).read(true).open(path).with_context(context)?;
        let mut sent = HashMap::new();
        for line in BufReader::new(&file).lines() {
            // A crash can cut a line short. That file's answer may be lost, so it is sent again.
            if let Ok(Line { entry, saved }) = serde_json::from_str(&line.with_context(context)?) {
                sent.insert(entry, saved);
            }
        }
        Ok(Self { file, target: target.to_owned(), sent })
    }

    /// Whether the file was sent unchanged, and, if answers are stored, its answer still exists.
    pub fn has(&self, file: &Path, answers: Option<&Answers>) -> bool {
        let Some(saved) = self.entry(file).ok().and_then(|entry| self.sent.get(&entry)) else { return false };
        answers.is_none_or(|answers| saved.as_ref().is_some_and(|name| answers.has(name)))
    }

    /// Records a file as sent, with the name of its stored answer.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn add(&mut self, file: &Path, saved: Option<String>) -> anyhow::Result<()> {
        let line = Line { entry: self.entry(file)?, saved };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        self.file.write_all(&text).context("cannot write the journal")?;
        self.file.sync_data().context("cannot write the journal")?;
        self.sent.insert(line.entry, line.saved);
        Ok(())
    }

    fn entry(&self, file: &Path) -> anyhow::Result<Entry> {
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Entry {
            target: self.target.clone(),
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: metadata.len(),
            modified_ms: u64::try_from(modified.as_millis()).unwrap_or(u64::MAX),
        })
    }
}
