//! Image embedding models: ONNX graphs run by ONNX Runtime, with the preprocessing their authors published.
//!
//! Call [`runtime::load`] once per process, then [`load`] for every `[model.NAME]` section.
//! To add a source of models: one file that defines a `ModelSource`, and an entry in `SOURCES`.

mod builtin;
mod directory;
mod error;
mod external_data;
mod inference_threads;
mod model_file;
mod model_output;
mod model_source;
mod onnx_model;
mod preprocess;
mod processor_config;
pub mod runtime;
mod spec;

use std::path::Path;
use std::sync::Arc;

use pipeline::{Compute, ImageModel, KeyProblem};

use self::model_source::ModelSource;
use self::onnx_model::OnnxModel;

pub use error::ModelError;
pub use preprocess::{Filter, Preprocessing, Resize};
pub use processor_config::ProcessorError;
pub use spec::ModelSpec;

/// Every kind of `source`; the first one that takes a section's value is used. A directory takes any value, so it is
/// last.
static SOURCES: [ModelSource; 2] = [builtin::SOURCE, directory::SOURCE];

/// Largest `batch`: beyond this a session's memory grows and its throughput does not.
const MAX_BATCH: usize = 64;

/// Loads the model of `[model.NAME]`: reads and hashes its files, opens its sessions and runs each once.
///
/// Blocks for as long as that takes (a second per 500 MB or so): call it before serving, or on a blocking thread.
/// A relative `source` is taken from `base`. Images are resized and normalised on `compute`.
///
/// # Errors
/// If the runtime is not loaded, a file is missing or differs from its pin, or the model is not an image embedder.
pub fn load(name: &str, spec: &ModelSpec, base: &Path, compute: &Compute) -> Result<Arc<dyn ImageModel>, ModelError> {
    let parts = (spec.model_source().read)(spec, base)?;
    Ok(Arc::new(OnnxModel::load(name, spec, parts, compute)?))
}

/// Checks that the files of a model are there and can be read; blocks like [`load`], and loads nothing.
///
/// # Errors
/// As [`load`] would say it.
pub fn check_files(spec: &ModelSpec, base: &Path) -> Result<(), ModelError> {
    (spec.model_source().read)(spec, base).map(|_| ())
}

impl ModelSpec {
    fn model_source(&self) -> &'static ModelSource {
        SOURCES.iter().find(|source| (source.takes)(self)).unwrap_or(&SOURCES[SOURCES.len() - 1])
    }

    /// Everything that is wrong with the section, as far as can be told without reading files.
    #[must_use]
    pub fn check(&self) -> Vec<KeyProblem> {
        let mut key_problems = (self.model_source().check)(self);
        if self.source.is_empty() {
            let remedy = format!("use {}", SOURCES.map(|source| source.notation).join(", or "));
            key_problems.push(KeyProblem { key: "source", message: "source is empty".into(), remedy });
        }
        if let Some(file) = &self.file
            && (file.is_absolute() || file.components().any(|part| part.as_os_str() == ".."))
        {
            let message = format!("{} is not inside the model directory", file.display());
            let remedy = "give a path relative to `source`, as onnx/model.onnx".into();
            key_problems.push(KeyProblem { key: "file", message, remedy });
        }
        if self.batch.get() > MAX_BATCH {
            let message = format!("a batch of {} images is too large, the limit is {MAX_BATCH}", self.batch);
            key_problems.push(KeyProblem { key: "batch", message, remedy: "use 8 or 16".into() });
        }
        key_problems
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn complaint_keys(json: serde_json::Value) -> Vec<&'static str> {
        let spec: ModelSpec = serde_json::from_value(json).unwrap();
        spec.check().iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn every_complaint_is_reported_at_once() {
        let wrong = json!({"source": "builtin:clip", "file": "../x.onnx", "batch": 100});
        assert_eq!(complaint_keys(wrong), ["source", "file", "file", "batch"]);
    }

    #[test]
    fn the_built_in_model_and_a_directory_have_no_key_problems() {
        assert_eq!(complaint_keys(json!({"source": "builtin:descriptor"})), [""; 0]);
        assert_eq!(complaint_keys(json!({"source": "models/clip", "file": "onnx/model.onnx"})), [""; 0]);
    }

    #[test]
    fn an_empty_source_is_refused_with_the_sources_there_are() {
        let spec = ModelSpec { source: String::new(), ..ModelSpec::descriptor() };
        let key_problems = spec.check();
        assert_eq!((key_problems.len(), key_problems[0].key), (1, "source"));
        assert_eq!(key_problems[0].remedy, "use builtin:descriptor, or a model directory");
    }

    #[test]
    fn the_check_does_not_look_for_the_directory() {
        assert_eq!(complaint_keys(json!({"source": "models/absent"})), [""; 0]);
    }

    #[test]
    fn a_file_outside_the_model_directory_is_refused() {
        assert_eq!(complaint_keys(json!({"source": "models/clip", "file": "/etc/passwd"})), ["file"]);
        assert_eq!(complaint_keys(json!({"source": "models/clip", "file": "../other/model.onnx"})), ["file"]);
    }

    #[test]
    fn a_batch_beyond_the_limit_is_refused() {
        assert_eq!(complaint_keys(json!({"source": "models/clip", "batch": 65})), ["batch"]);
    }

    #[test]
    fn a_prefix_selects_its_source_and_any_other_value_is_a_directory() {
        let notation_of = |source: &str| {
            let spec = ModelSpec { source: source.into(), ..ModelSpec::descriptor() };
            spec.model_source().notation
        };
        assert_eq!(notation_of("builtin:descriptor"), builtin::SOURCE.notation);
        assert_eq!(notation_of("models/clip"), directory::SOURCE.notation);
    }
}
