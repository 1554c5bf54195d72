//! Models in a directory in Hugging Face layout: `preprocessor_config.json` and an ONNX file.

use std::path::Path;

use super::error::ModelError;
use super::model_file;
use super::model_source::{ModelParts, ModelSource};
use super::processor_config::{self, ProcessorError};
use super::spec::ModelSpec;

/// `source = "PATH"`: every value without a prefix that another source takes.
pub(super) const SOURCE: ModelSource =
    ModelSource { notation: "a model directory", takes: |_| true, check: |_| Vec::new(), read };

fn read(spec: &ModelSpec, base: &Path) -> Result<ModelParts, ModelError> {
    let directory = base.join(&spec.source);
    if !directory.is_dir() {
        let why = "there is no such directory: give the folder that holds preprocessor_config.json".into();
        return Err(ModelError::File { path: directory, why });
    }
    let path = directory.join("preprocessor_config.json");
    let preprocessing = std::fs::read_to_string(&path)
        .map_err(ProcessorError::Unreadable)
        .and_then(|text| processor_config::parse(&text))
        .map_err(|source| ModelError::Processor { path, source })?;
    let file = model_file::open(&directory, spec.file.as_deref())?;
    Ok(ModelParts { path: file.path, bytes: None, digest: file.digest, preprocessing })
}
