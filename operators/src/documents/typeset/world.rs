//! The environment of one rendering (typst's `World`): one template, its data and built-in fonts; no files, packages or
//! clock.
//!
//! It also counts the steps of the rendering. typst asks it for a font at each piece of text it lays out; the metered
//! template asks for [`STEP_FONT`] at each step. Beyond a limit the thread unwinds, because nothing else stops a
//! computation of typst; typst caches only finished computations, so its cache stays valid.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;
use typst::diag::{FileError, FileResult};
use typst::foundations::{Bytes, Datetime, Duration};
use typst::syntax::{FileId, RootedPath, Source, VirtualPath, VirtualRoot};
use typst::text::{Font, FontBook};
use typst::utils::LazyHash;
use typst::{Library, World};

use super::library::LIBRARY;
use super::metering::STEP_FONT;

/// The fonts included with typst: Libertinus Serif, New Computer Modern and DejaVu Sans Mono.
static FONTS: LazyLock<(LazyHash<FontBook>, Vec<Font>)> = LazyLock::new(|| {
    let fonts: Vec<Font> = typst_assets::fonts().flat_map(|file| Font::iter(Bytes::new(file))).collect();
    (LazyHash::new(FontBook::from_fonts(&fonts)), fonts)
});

/// Ids of the two files that exist. Interned once: typst stores names forever.
static MAIN: LazyLock<Option<FileId>> = LazyLock::new(|| file_id("/template.typ"));
static DATA: LazyLock<Option<FileId>> = LazyLock::new(|| file_id("/data.json"));

fn file_id(name: &str) -> Option<FileId> {
    Some(RootedPath::new(VirtualRoot::Project, VirtualPath::new(name).ok()?).intern())
}

/// The id of the template's own source.
pub(super) fn main_id() -> Option<FileId> {
    *MAIN
}

/// The limit that stopped a rendering; the payload that the thread unwinds with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitExceeded {
    /// Too many steps.
    Steps,
    /// Too much time.
    Time,
}

/// The environment of one rendering.
pub(super) struct TemplateWorld<'t> {
    source: &'t Source,
    data: Bytes,
    /// Remaining steps.
    steps: AtomicU64,
    deadline: Instant,
}

impl<'t> TemplateWorld<'t> {
    pub(super) fn new(source: &'t Source, data: Vec<u8>, steps: u64, time: std::time::Duration) -> Self {
        Self { source, data: Bytes::new(data), steps: AtomicU64::new(steps), deadline: Instant::now() + time }
    }

    /// Counts one step. Checks the clock only at every 64th step, because it costs more than counting.
    fn tick(&self) {
        let left = self.steps.load(Ordering::Relaxed);
        if left == 0 {
            resume_unwind(Box::new(LimitExceeded::Steps));
        }
        // Concurrent steps of several threads may count as one; the deadline still bounds them.
        self.steps.store(left - 1, Ordering::Relaxed);
        if left.is_multiple_of(64) {
            self.check_time();
        }
    }

    fn check_time(&self) {
        if Instant::now() > self.deadline {
            resume_unwind(Box::new(LimitExceeded::Time));
        }
    }
}

impl World for TemplateWorld<'_> {
    fn library(&self) -> &LazyHash<Library> {
        &LIBRARY
    }

    fn book(&self) -> &LazyHash<FontBook> {
        &FONTS.0
    }

    fn main(&self) -> FileId {
        self.source.id()
    }

    fn source(&self, id: FileId) -> FileResult<Source> {
        if id == self.source.id() { Ok(self.source.clone()) } else { Err(missing(id)) }
    }

    fn file(&self, id: FileId) -> FileResult<Bytes> {
        if Some(id) == *DATA { Ok(self.data.clone()) } else { Err(missing(id)) }
    }

    fn font(&self, index: usize) -> Option<Font> {
        if index == STEP_FONT {
            self.tick();
            return None;
        }
        self.check_time();
        FONTS.1.get(index).cloned()
    }

    /// No current date, so that the same data give the same document on any day.
    fn today(&self, _: Option<Duration>) -> Option<Datetime> {
        None
    }
}

fn missing(id: FileId) -> FileError {
    FileError::NotFound(PathBuf::from(id.vpath().get_without_slash()))
}
