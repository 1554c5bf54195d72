//! Loading ONNX Runtime. It is loaded once per process, so the failures before that need a process, and one test, of
//! their own.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic, and read the environment")]

mod support;

use std::time::Duration;

use connectors::models::runtime::{self, RuntimeError};
use connectors::models::{self, ModelError, ModelSpec};
use tokio::time::Instant;

#[test]
fn wrong_libraries_are_refused_at_once_and_the_right_one_loads_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let compute = pipeline::Compute::new(1).unwrap();
    let started = Instant::now();
    let early = models::load("photo", &ModelSpec::descriptor(), directory.path(), &compute).map(|_| ());
    assert!(matches!(early, Err(ModelError::Runtime(RuntimeError::NotLoaded))), "{early:?}");

    let missing = runtime::load(&directory.path().join("libonnxruntime.so")).unwrap_err();
    assert!(matches!(missing, RuntimeError::Missing { .. }), "{missing:?}");
    assert!(missing.to_string().contains("make setup"));
    assert!(matches!(runtime::load(directory.path()), Err(RuntimeError::Missing { .. })));
    for text in ["not a library", ""] {
        let path = directory.path().join("garbage.so");
        std::fs::write(&path, text).unwrap();
        assert!(matches!(runtime::load(&path), Err(RuntimeError::NotALibrary { .. })), "{text:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(1));

    let info = runtime::load(&support::runtime_path()).unwrap();
    assert!(info.version.starts_with("1."), "{info:?}");
    assert!(info.path.is_absolute());
    // Once loaded, every further call returns the same.
    assert_eq!(runtime::load(directory.path()).unwrap(), info);
    assert_eq!(runtime::loaded(), Some(info));
    models::load("photo", &ModelSpec::descriptor(), directory.path(), &compute).unwrap();
}
