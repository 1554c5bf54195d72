//! A pool in a temporary folder, and helpers to look into processes and PDFs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use connectors::documents::{Engine, Pool, PoolConfig};
use pipeline::documents::{Conversion, ConvertError, Converted, Converter as _, Format, Options};
use tempfile::TempDir;
use tokio::time::Instant;

/// A pool with its own work folder.
pub struct TestPool {
    pub pool: Pool,
    pub folder: TempDir,
}

/// The worker program, built beside the tests.
fn worker() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples/office_worker");
    assert!(program.is_file(), "build it first: cargo build --release --workspace --example office_worker");
    program
}

/// A config with one worker and its spare.
pub fn config(folder: &TempDir) -> PoolConfig {
    let mut config = PoolConfig::new((worker(), Vec::new()), folder.path().to_owned());
    config.workers = 1;
    config
}

impl TestPool {
    /// A pool of LibreOffice workers: one and its spare unless `change` sets another number.
    pub async fn with_libreoffice(change: impl FnOnce(&mut PoolConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        change(&mut config);
        Self { pool: Pool::start(config).await.unwrap(), folder }
    }

    /// A pool of test engines, which do what their input says.
    pub async fn with_test_engine(change: impl FnOnce(&mut PoolConfig)) -> Self {
        Self::with_libreoffice(|config| {
            config.engine = Engine::Test;
            change(config);
        })
        .await
    }

    pub async fn convert(&self, input: &[u8], from: Format, to: Format) -> Result<Converted, ConvertError> {
        self.with(input, from, to, Options::default()).await
    }

    pub async fn with(
        &self,
        input: &[u8],
        from: Format,
        to: Format,
        options: Options,
    ) -> Result<Converted, ConvertError> {
        let input = input.to_vec().into();
        let deadline = Instant::now() + Duration::from_secs(60);
        self.pool.convert(Conversion { input, from, to, options, class: String::new(), deadline }).await
    }

    /// Sends a command to the test engine, with a deadline in `ms`.
    pub async fn command(&self, word: &str, ms: u64) -> Result<Converted, ConvertError> {
        let deadline = Instant::now() + Duration::from_millis(ms);
        let input = word.as_bytes().to_vec().into();
        let (from, to, options) = (Format::Txt, Format::Pdf, Options::default());
        self.pool.convert(Conversion { input, from, to, options, class: String::new(), deadline }).await
    }

    /// Waits until this many workers are alive; returns their process ids.
    pub async fn workers(&self, count: usize) -> Vec<u32> {
        eventually(|| self.pool.metrics().processes.len() == count).await;
        self.pool.metrics().processes
    }

    /// Closes the pool and checks that no process and no file is left.
    pub async fn close(self) {
        let processes = self.pool.metrics().processes;
        self.pool.close().await;
        for pid in processes {
            assert!(!alive(pid), "worker {pid} was left");
        }
        let left: Vec<_> = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "left: {left:?}");
    }
}

pub fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether the process is running; a zombie is not.
pub fn running(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// Waits for a condition, for at most a minute.
pub async fn eventually(mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < limit, "the condition was not met within a minute");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Text of all pages of a PDF, without white space: PDF readers guess where words end.
pub fn text(pdf: &[u8]) -> String {
    let document = lopdf::Document::load_mem(pdf).unwrap();
    page_text(&document, &document.get_pages().keys().copied().collect::<Vec<_>>())
}

/// Text of some pages, without white space.
pub fn page_text(document: &lopdf::Document, pages: &[u32]) -> String {
    document.extract_text(pages).unwrap().split_whitespace().collect()
}

/// How often `needle` occurs in a file.
pub fn count(bytes: &[u8], needle: &str) -> usize {
    bytes.windows(needle.len()).filter(|window| *window == needle.as_bytes()).count()
}
