//! Loads ONNX Runtime, a shared library, explicitly and once per process.
//!
//! The binding (`ort`) would search for the library on first use and panic if it found none; loading it here first
//! prevents that. A library that is missing, too old or not a library is an error within a second.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::LoadDynamicError;
use ort::environment::Environment;
use ort::logging::LogLevel;

/// The oldest ONNX Runtime with the API this program was built for.
pub const OLDEST: &str = "1.24";

/// File names of the library in wheels and packages of the platforms.
const FILE_NAMES: [&str; 3] = ["libonnxruntime.so", "libonnxruntime.so.1", "libonnxruntime.dylib"];

/// The library that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// For example `1.31.1`; `unknown` if the library does not contain it as text.
    pub version: String,
    /// Absolute, symbolic links resolved.
    pub path: PathBuf,
}

/// Why ONNX Runtime is not usable.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no such file, or it is not a regular file.
    #[error("no ONNX Runtime library at {path}: run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so")]
    Missing {
        /// Where the search looked.
        path: String,
    },
    /// The file cannot be loaded as a library, or is another library.
    #[error("{path} is not an ONNX Runtime library: run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so")]
    NotALibrary {
        /// Which file.
        path: PathBuf,
        /// The loader's error.
        #[source]
        source: LoadDynamicError,
    },
    /// The library is too old.
    #[error("{path} is ONNX Runtime {version}, at least {OLDEST} is needed: run `make setup`")]
    TooOld {
        /// Which file.
        path: PathBuf,
        /// The library's version.
        version: String,
    },
    /// The library was loaded but did not initialise.
    #[error("ONNX Runtime at {path} did not start")]
    Start {
        /// Which file.
        path: PathBuf,
        /// ONNX Runtime's error.
        #[source]
        source: ort::Error,
    },
    /// A model was loaded before [`load`] succeeded.
    #[error("ONNX Runtime is not loaded: a [model.NAME] section needs it (run `make setup`)")]
    NotLoaded,
}

/// The loaded library and the environment that sessions are created in.
struct OnnxRuntime {
    info: RuntimeInfo,
    environment: Environment,
}

/// Stays set once it is set: sessions refer to the environment until the process ends.
static RUNTIME: Mutex<Option<OnnxRuntime>> = Mutex::new(None);

/// The library that the user named, or the first one found in `folders`.
///
/// # Errors
/// [`RuntimeError::Missing`], with the folders that were searched.
pub fn find(named: Option<&Path>, folders: &[PathBuf]) -> Result<PathBuf, RuntimeError> {
    let missing = |path: String| Err(RuntimeError::Missing { path });
    if let Some(path) = named {
        return if path.is_file() { Ok(path.to_path_buf()) } else { missing(path.display().to_string()) };
    }
    let candidates = folders.iter().flat_map(|folder| FILE_NAMES.iter().map(move |name| folder.join(name)));
    let looked: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    match candidates.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => missing(looked.join(", ")),
    }
}

/// Loads the library at `path` and initialises it, telemetry off. After a success every further call returns the
/// library that is loaded, whatever its path; after a failure another path may be tried.
///
/// # Errors
/// See [`RuntimeError`].
pub fn load(path: &Path) -> Result<RuntimeInfo, RuntimeError> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = &*runtime {
        return Ok(loaded.info.clone());
    }
    // Only a regular file: opening a named pipe would block forever.
    let missing = || RuntimeError::Missing { path: path.display().to_string() };
    let path = path.canonicalize().map_err(|_| missing())?;
    if !path.is_file() {
        return Err(missing());
    }
    let builder = ort::init_from(&path).map_err(|error| refused(&path, error))?;
    let environment = builder
        .with_name("caudal")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|source| RuntimeError::Start { path: path.clone(), source })?;
    environment.set_log_level(LogLevel::Warning);
    let info = RuntimeInfo { version: version_of(&path).unwrap_or_else(|| "unknown".into()), path };
    *runtime = Some(OnnxRuntime { info: info.clone(), environment });
    Ok(info)
}

/// The loaded library, for `caudal doctor`.
#[must_use]
pub fn loaded() -> Option<RuntimeInfo> {
    RUNTIME.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|loaded| loaded.info.clone())
}

/// The environment that sessions are created in.
pub(super) fn environment() -> Result<Environment, RuntimeError> {
    let runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    runtime.as_ref().map(|runtime| runtime.environment.clone()).ok_or(RuntimeError::NotLoaded)
}

/// Forwards the library's messages to the log; by itself it writes to standard error, in color.
fn log(level: LogLevel, category: &str, id: &str, _place: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::error!(category, id, "{message}"),
        LogLevel::Warning => tracing::warn!(category, id, "{message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(category, id, "{message}"),
    }
}

fn refused(path: &Path, error: LoadDynamicError) -> RuntimeError {
    match error {
        LoadDynamicError::BadVersion { version_str, .. } => {
            RuntimeError::TooOld { path: path.to_path_buf(), version: version_str }
        }
        source => RuntimeError::NotALibrary { path: path.to_path_buf(), source },
    }
}

/// Reads the version from the library's symbol version (`VERS_1.31.1`): the binding does not expose it.
fn version_of(path: &Path) -> Option<String> {
    const MARK: &[u8] = b"VERS_";
    const STEP: usize = 1 << 20;
    /// Longer than any version, so that one that spans two reads is still found.
    const OVERLAP: usize = 64;
    let mut file = File::open(path).ok()?;
    let mut window = Vec::with_capacity(STEP + OVERLAP);
    loop {
        let overlap = window.len().min(OVERLAP);
        window.drain(..window.len() - overlap);
        let read = file.by_ref().take(STEP as u64).read_to_end(&mut window).ok()?;
        if read == 0 {
            return None;
        }
        let found = window.windows(MARK.len()).position(|bytes| bytes == MARK);
        if let Some(version) = found.and_then(|at| version_text(&window[at + MARK.len()..])) {
            return Some(version);
        }
    }
}

fn version_text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| !(byte.is_ascii_digit() || *byte == b'.'))?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    (text.matches('.').count() == 2).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_at_any_offset() {
        let directory = tempfile::tempdir().unwrap();
        for padding in [0, 5, (1 << 20) - 4, (1 << 20) + 9] {
            let path = directory.path().join(format!("library{padding}"));
            let mut bytes = vec![7; padding];
            bytes.extend_from_slice(b"VERS_1.31.1\0rest");
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(version_of(&path).as_deref(), Some("1.31.1"), "{padding}");
        }
        let path = directory.path().join("without");
        std::fs::write(&path, "VERS_\0 VERS_1.2\0").unwrap();
        assert_eq!(version_of(&path), None);
    }

    #[test]
    fn a_named_library_is_used_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().to_path_buf();
        let library = folder.join("libonnxruntime.so");
        let error = find(None, std::slice::from_ref(&folder)).unwrap_err();
        assert!(error.to_string().contains(folder.to_str().unwrap()), "{error}");
        std::fs::write(&library, "").unwrap();
        assert_eq!(find(None, std::slice::from_ref(&folder)).unwrap(), library);
        assert!(matches!(find(Some(&folder.join("other")), &[folder]), Err(RuntimeError::Missing { .. })));
    }
}
