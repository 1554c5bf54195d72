//! What typst sees of the outside: one template, its data, our fonts, and no files, packages or clock.
//!
//! It also holds the meter of one rendering. typst asks it for a font at each piece of text it lays out, and the template
//! has been rewritten so that it does the same, for [`TICKED`], at each step. When the bounds are passed the thread
//! unwinds: nothing else ends a computation of typst, and it keeps what it computed only when it has finished.

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

/// The font that there is none of, which a template asks for at each step.
pub(super) const TICKED: usize = usize::MAX;

/// The fonts that typst brings along: Libertinus Serif, New Computer Modern and DejaVu Sans Mono.
static FONTS: LazyLock<(LazyHash<FontBook>, Vec<Font>)> = LazyLock::new(|| {
    let fonts: Vec<Font> = typst_assets::fonts().flat_map(|file| Font::iter(Bytes::new(file))).collect();
    (LazyHash::new(FontBook::from_fonts(&fonts)), fonts)
});

/// The names of the two files there are. Taken once: typst keeps names for ever.
static MAIN: LazyLock<Option<FileId>> = LazyLock::new(|| file_id("/template.typ"));
static DATA: LazyLock<Option<FileId>> = LazyLock::new(|| file_id("/data.json"));

fn file_id(name: &str) -> Option<FileId> {
    Some(RootedPath::new(VirtualRoot::Project, VirtualPath::new(name).ok()?).intern())
}

/// The name of a template's own source.
pub(super) fn main_id() -> Option<FileId> {
    *MAIN
}

/// Why a rendering was given up; what the thread unwinds with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Too many steps.
    Steps,
    /// Too much time.
    Time,
}

/// The world of one rendering.
pub(super) struct Sheet<'t> {
    source: &'t Source,
    data: Bytes,
    /// Steps that are left.
    steps: AtomicU64,
    deadline: Instant,
}

impl<'t> Sheet<'t> {
    pub(super) fn new(source: &'t Source, data: Vec<u8>, steps: u64, time: std::time::Duration) -> Self {
        Self { source, data: Bytes::new(data), steps: AtomicU64::new(steps), deadline: Instant::now() + time }
    }

    /// Counts one step. Checks the clock at every 64th, which costs more than the count.
    fn tick(&self) {
        let left = self.steps.load(Ordering::Relaxed);
        if left == 0 {
            resume_unwind(Box::new(Stopped::Steps));
        }
        // Steps that several threads take at once may count as one; the deadline is there for them.
        self.steps.store(left - 1, Ordering::Relaxed);
        if left.is_multiple_of(64) {
            self.check_time();
        }
    }

    fn check_time(&self) {
        if Instant::now() > self.deadline {
            resume_unwind(Box::new(Stopped::Time));
        }
    }
}

impl World for Sheet<'_> {
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
        if index == TICKED {
            self.tick();
            return None;
        }
        self.check_time();
        FONTS.1.get(index).cloned()
    }

    /// There is no today: the same data give the same document on every day.
    fn today(&self, _: Option<Duration>) -> Option<Datetime> {
        None
    }
}

fn missing(id: FileId) -> FileError {
    FileError::NotFound(PathBuf::from(id.vpath().get_without_slash()))
}
