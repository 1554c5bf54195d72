//! The `[office]` section: where LibreOffice is, and limits of its worker processes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline::KeyProblem;
use pipeline::spec::ByteSize;
use serde::Deserialize;

use super::pool::{PoolConfig, Recycle};
use super::protocol::Engine;

/// LibreOffice's library, below its folder.
const LIBRARY: &str = "program/libmergedlo.so";

/// LibreOffice and its worker processes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OfficeSpec {
    /// Where LibreOffice is installed.
    pub path: PathBuf,
    /// Conversions at the same time; 0 means one per core. There is one worker process more, started ahead as a spare.
    pub workers: usize,
    /// Conversions that may wait for a worker.
    pub queue: usize,
    /// Timeout of a conversion, in milliseconds.
    pub timeout_ms: u64,
    /// A worker is replaced after about this many documents: LibreOffice leaks memory and gets slower.
    pub recycle_after: u32,
    /// A worker is replaced once it has more resident memory than this.
    pub recycle_memory: ByteSize,
    /// Largest document.
    pub max_input: ByteSize,
    /// Largest result.
    pub max_output: ByteSize,
    /// Most pages of a result.
    pub max_pages: u32,
    /// How long a document that crashed two workers is refused, in milliseconds.
    pub quarantine_ms: u64,
    /// Refuse to start if the sandbox leaks. `false` logs the leak and starts anyway: for kernels without the features.
    pub require_sandbox: bool,
}

impl Default for OfficeSpec {
    fn default() -> Self {
        Self {
            path: "/usr/lib/libreoffice".into(),
            workers: 0,
            queue: 64,
            timeout_ms: 30_000,
            recycle_after: 100,
            recycle_memory: ByteSize::mib(400),
            max_input: ByteSize::mib(32),
            max_output: ByteSize::mib(50),
            max_pages: 500,
            quarantine_ms: 600_000,
            require_sandbox: true,
        }
    }
}

impl OfficeSpec {
    /// Everything that is wrong with the section.
    #[must_use]
    pub fn check(&self) -> Vec<KeyProblem> {
        let at_least = [
            ("timeout_ms", self.timeout_ms, 1_000),
            ("recycle_after", u64::from(self.recycle_after), 1),
            ("recycle_memory", self.recycle_memory.0, 256 << 20),
            ("max_input", self.max_input.0, 1),
            ("max_output", self.max_output.0, 1),
            ("max_pages", u64::from(self.max_pages), 1),
        ];
        let too_low = at_least.into_iter().filter(|(_, value, least)| value < least);
        let mut key_problems: Vec<KeyProblem> = too_low
            .map(|(key, value, least)| KeyProblem {
                key,
                message: format!("{key} is {value}"),
                remedy: format!("give at least {least}"),
            })
            .collect();
        if self.workers > MAX_WORKERS {
            let message = format!("workers is {}", self.workers);
            key_problems.push(KeyProblem { key: "workers", message, remedy: format!("give at most {MAX_WORKERS}") });
        }
        key_problems
    }

    /// Finds LibreOffice's library.
    ///
    /// # Errors
    /// A sentence that says how to install or configure LibreOffice.
    pub fn find(&self) -> Result<PathBuf, String> {
        let library = self.path.join(LIBRARY);
        if library.is_file() {
            return Ok(library);
        }
        Err(format!(
            "LibreOffice is not installed: there is no {}. Run `make setup`, or `apt-get install {PACKAGES}`, or set \
             [office] path to its folder",
            library.display()
        ))
    }

    /// The config of the pool. `worker` is the program with its hidden subcommand, `folder` is for profiles and
    /// documents.
    #[must_use]
    pub fn pool(&self, worker: (PathBuf, Vec<OsString>), folder: &Path) -> PoolConfig {
        let defaults = PoolConfig::new(worker, folder.to_path_buf());
        PoolConfig {
            engine: Engine::LibreOffice(self.path.clone()),
            workers: if self.workers > 0 { self.workers } else { defaults.workers },
            queue: self.queue,
            job_timeout: Duration::from_millis(self.timeout_ms),
            largest_input: self.max_input.0,
            largest_output: self.max_output.0,
            most_pages: self.max_pages,
            recycle: Recycle { jobs: self.recycle_after, rss: self.recycle_memory.0, ..Recycle::default() },
            quarantine: Duration::from_millis(self.quarantine_ms),
            require_sandbox: self.require_sandbox,
            ..defaults
        }
    }
}

/// More processes than a machine has memory for.
const MAX_WORKERS: usize = 64;

/// The Debian packages of LibreOffice that are needed.
pub const PACKAGES: &str = "libreoffice-writer-nogui libreoffice-calc-nogui libreoffice-impress-nogui fonts-liberation";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_libreoffice_is_reported_with_the_remedy() {
        let spec = OfficeSpec { path: "/nowhere".into(), ..OfficeSpec::default() };
        let why = spec.find().unwrap_err();
        assert!(why.contains("/nowhere/program") && why.contains("apt-get install libreoffice-writer-nogui"), "{why}");
    }

    #[test]
    fn every_value_out_of_range_is_reported() {
        let spec: OfficeSpec = serde_json::from_value(serde_json::json!({
            "timeout_ms": 0, "recycle_memory": "1 MiB", "max_pages": 0, "workers": 1000
        }))
        .unwrap();
        let keys: Vec<_> = spec.check().iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["timeout_ms", "recycle_memory", "max_pages", "workers"]);
        assert!(OfficeSpec::default().check().is_empty());
    }
}
