//! The journal of a folder: JSON lines, appended as files are accepted and answered.
//!
//! The first line is the journal's id. A file has a line when its request is accepted, and one when it is answered or its request
//! has ended otherwise. The line of an answer is all that journals of earlier versions have.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::answers::Answers;

/// A file as it was when it was sent. A changed file is sent again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    target: String,
    file: String,
    bytes: u64,
    modified_ms: u64,
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    /// The journal's id.
    Opened { journal: String },
    /// The service accepted the file. Nested, so that an earlier version does not take it for an answer.
    Accepted { accepted: Entry, request: String, round: u32 },
    /// The file's request has ended without an answer that is of use.
    Ended { ended: Entry, round: u32 },
    /// The file was answered.
    Answered {
        #[serde(flatten)]
        entry: Entry,
        /// The name of the stored answer, if it was stored.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        saved: Option<String>,
    },
}

/// What the journal knows of a file.
#[derive(Default)]
struct Known {
    /// How many requests of the file have ended, answered or not.
    round: u32,
    /// The request that is accepted and has not ended.
    request: Option<String>,
    /// The name of the stored answer, if it was stored; of the last request that was answered.
    answered: Option<Option<String>>,
}

/// The journal of one folder, for one target.
pub struct Journal {
    file: File,
    id: String,
    target: String,
    known: HashMap<Entry, Known>,
}

impl Journal {
    /// Opens the journal, creating it if it is missing.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path, target: &str) -> anyhow::Result<Self> {
        let context = || format!("cannot use the journal {}", path.display());
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path).with_context(context)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(context)?;
        let mut journal = Self { file, id: String::new(), target: target.to_owned(), known: HashMap::new() };
        // A crash can cut a line short. That file's answer may be lost, so it is sent again.
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).for_each(|line| {
            journal.take(line);
        });
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            journal.file.write_all(b"\n").with_context(context)?;
        }
        if journal.id.is_empty() {
            let id = format!("{:032x}", rand::random::<u128>());
            journal.write(Line::Opened { journal: id }).with_context(context)?;
            journal.file.sync_data().with_context(context)?;
        }
        Ok(journal)
    }

    /// The journal's id, the same each time it is opened.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The file as it is now.
    ///
    /// # Errors
    /// If its size and time cannot be read.
    pub fn entry(&self, file: &Path) -> anyhow::Result<Entry> {
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Entry {
            target: self.target.clone(),
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: metadata.len(),
            modified_ms: u64::try_from(modified.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Whether the file was answered unchanged, and, if answers are stored, its answer still exists.
    pub fn has(&self, file: &Path, answers: Option<&Answers>) -> bool {
        let known = self.entry(file).ok().and_then(|entry| self.known.get(&entry));
        let Some(saved) = known.and_then(|known| known.answered.as_ref()) else { return false };
        answers.is_none_or(|answers| saved.as_ref().is_some_and(|name| answers.has(name)))
    }

    /// The file's request that is accepted and not known to have ended.
    pub fn request(&self, entry: &Entry) -> Option<String> {
        self.known.get(entry)?.request.clone()
    }

    /// How many requests of the file have ended.
    pub fn round(&self, entry: &Entry) -> u32 {
        self.known.get(entry).map_or(0, |known| known.round)
    }

    /// Records that the service accepted the file. Not synced: if the line is lost, the file's key finds the request.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn accepted(&mut self, entry: &Entry, request: &str) -> anyhow::Result<()> {
        let (accepted, round) = (entry.clone(), self.round(entry));
        self.write(Line::Accepted { accepted, request: request.to_owned(), round })
    }

    /// Forgets the file's request until the journal is opened again: the service does not know it.
    pub fn forget(&mut self, entry: &Entry) {
        if let Some(known) = self.known.get_mut(entry) {
            known.request = None;
        }
    }

    /// Records that the file's request has ended without an answer. Sent again, the file is a new request.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn ended(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let (ended, round) = (entry.clone(), self.round(entry));
        self.write(Line::Ended { ended, round })
    }

    /// Records a file as answered, with the name of its stored answer, and syncs the journal.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn answered(&mut self, entry: Entry, saved: Option<String>) -> anyhow::Result<()> {
        self.write(Line::Answered { entry, saved })?;
        self.file.sync_data().context("cannot write the journal")
    }

    fn write(&mut self, line: Line) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        self.file.write_all(&text).context("cannot write the journal")?;
        self.take(line);
        Ok(())
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Opened { journal } => self.id = journal,
            Line::Accepted { accepted, request, round } => {
                let known = self.known.entry(accepted).or_default();
                known.request = Some(request);
                known.round = round;
            }
            Line::Ended { ended, round } => {
                let known = self.known.entry(ended).or_default();
                known.request = None;
                known.round = round.saturating_add(1);
            }
            Line::Answered { entry, saved } => {
                let known = self.known.entry(entry).or_default();
                known.request = None;
                known.round = known.round.saturating_add(1);
                known.answered = Some(saved);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const TARGET: &str = "http://127.0.0.1:8080/photos/{name}";

    /// A folder with the file `a.jpg` and its journal.
    struct Case {
        folder: TempDir,
    }

    impl Case {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("a.jpg"), "pixels").unwrap();
            Self { folder }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.folder.path().join(name)
        }

        fn open(&self) -> (Journal, Entry) {
            let journal = Journal::open(&self.path("journal"), TARGET).unwrap();
            let entry = journal.entry(&self.path("a.jpg")).unwrap();
            (journal, entry)
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.path("journal")).unwrap()
        }
    }

    #[test]
    fn an_accepted_file_is_not_answered_but_its_request_is_known_again() {
        let case = Case::new();
        let (mut journal, entry) = case.open();
        journal.accepted(&entry, "r1").unwrap();
        let id = journal.id().to_owned();
        drop(journal);
        let (journal, entry) = case.open();
        assert!(!journal.has(&case.path("a.jpg"), None));
        assert_eq!((journal.request(&entry).as_deref(), journal.round(&entry)), (Some("r1"), 0));
        assert_eq!(journal.id(), id);
        assert_ne!(Case::new().open().0.id(), id);
    }

    #[test]
    fn a_request_that_ended_makes_room_for_another() {
        let case = Case::new();
        let (mut journal, entry) = case.open();
        journal.accepted(&entry, "r1").unwrap();
        journal.ended(&entry).unwrap();
        let (mut journal, entry) = case.open();
        assert_eq!((journal.request(&entry), journal.round(&entry)), (None, 1));
        journal.accepted(&entry, "r2").unwrap();
        journal.answered(entry, None).unwrap();
        let (journal, entry) = case.open();
        assert!(journal.has(&case.path("a.jpg"), None));
        assert_eq!((journal.request(&entry), journal.round(&entry)), (None, 2));
    }

    #[test]
    fn a_forgotten_request_keeps_its_round() {
        let case = Case::new();
        let (mut journal, entry) = case.open();
        journal.accepted(&entry, "r1").unwrap();
        journal.forget(&entry);
        assert_eq!((journal.request(&entry), journal.round(&entry)), (None, 0));
    }

    #[test]
    fn a_changed_file_is_unknown() {
        let case = Case::new();
        let (mut journal, entry) = case.open();
        journal.accepted(&entry, "r1").unwrap();
        journal.answered(entry, None).unwrap();
        std::fs::write(case.path("a.jpg"), "other pixels").unwrap();
        let (journal, entry) = case.open();
        assert!(!journal.has(&case.path("a.jpg"), None));
        assert_eq!((journal.request(&entry), journal.round(&entry)), (None, 0));
    }

    #[test]
    fn a_journal_of_an_earlier_version_is_read() {
        let case = Case::new();
        let (journal, entry) = case.open();
        let Entry { target, file, bytes, modified_ms } = entry;
        drop(journal);
        let line = |file: &str, more: &str| {
            let stamp = format!(r#""bytes":{bytes},"modified_ms":{modified_ms}"#);
            format!("{{\"target\":\"{target}\",\"file\":\"{file}\",{stamp}{more}}}")
        };
        let old = format!("{}\n{}\n", line(&file, ""), line("b.jpg", r#","saved":"b.png""#));
        std::fs::write(case.path("journal"), &old).unwrap();
        let (journal, entry) = case.open();
        assert!(journal.has(&case.path("a.jpg"), None));
        assert_eq!(journal.round(&entry), 1);
        let other = Entry { file: "b.jpg".into(), ..entry };
        assert_eq!(journal.known[&other].answered, Some(Some("b.png".into())));
        assert!(case.text().starts_with(&old), "{}", case.text());
    }

    #[test]
    fn an_earlier_version_does_not_take_an_accepted_file_for_answered() {
        #[derive(Deserialize)]
        struct EarlierLine {
            #[serde(flatten)]
            entry: Entry,
        }
        let case = Case::new();
        let (mut journal, entry) = case.open();
        journal.accepted(&entry, "r1").unwrap();
        journal.ended(&entry).unwrap();
        journal.answered(entry.clone(), None).unwrap();
        let text = case.text();
        let read: Vec<Entry> =
            text.lines().filter_map(|line| Some(serde_json::from_str::<EarlierLine>(line).ok()?.entry)).collect();
        assert_eq!((text.lines().count(), read), (4, vec![entry]));
    }

    #[test]
    fn a_line_that_was_cut_short_harms_no_other() {
        let case = Case::new();
        let (mut journal, entry) = case.open();
        journal.accepted(&entry, "r1").unwrap();
        let cut = case.text().trim_end_matches("}\n").to_owned();
        std::fs::write(case.path("journal"), cut).unwrap();
        let (mut journal, entry) = case.open();
        assert_eq!(journal.request(&entry), None);
        journal.answered(entry, None).unwrap();
        assert!(case.open().0.has(&case.path("a.jpg"), None));
    }
}
