//! Models compiled into the program: `source = "builtin:…"`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use pipeline::{Digest, KeyProblem};
use sha2::{Digest as _, Sha256};

use super::error::ModelError;
use super::model_source::{ModelParts, ModelSource};
use super::processor_config;
use super::spec::{DEFAULT_BATCH, ModelSpec};

/// `source = "builtin:NAME"`.
pub(super) const SOURCE: ModelSource =
    ModelSource { notation: DESCRIPTOR, takes: |spec| spec.source.starts_with(PREFIX), check, read };

const PREFIX: &str = "builtin:";
/// The one built-in model. `descriptor/make.py` generates its files.
const DESCRIPTOR: &str = "builtin:descriptor";
const DESCRIPTOR_MODEL: &[u8] = include_bytes!("descriptor/descriptor.onnx");
const DESCRIPTOR_PREPROCESSING: &str = include_str!("descriptor/preprocessor_config.json");

impl ModelSpec {
    /// The built-in model with every default.
    #[must_use]
    pub fn descriptor() -> Self {
        Self {
            source: DESCRIPTOR.into(),
            file: None,
            output: None,
            sha256: None,
            sessions: NonZeroUsize::MIN,
            threads: None,
            batch: DEFAULT_BATCH,
        }
    }
}

fn check(spec: &ModelSpec) -> Vec<KeyProblem> {
    let problem = |key, message: String, remedy: &str| KeyProblem { key, message, remedy: remedy.into() };
    let mut key_problems = Vec::new();
    if spec.source != DESCRIPTOR {
        let message = format!("there is no built-in model {:?}", spec.source);
        key_problems.push(problem("source", message, "use builtin:descriptor, or a model directory"));
    }
    if spec.file.is_some() {
        let message = "a built-in model has no files to choose from".into();
        key_problems.push(problem("file", message, "remove `file`, or name a model directory as `source`"));
    }
    key_problems
}

fn read(spec: &ModelSpec, _base: &Path) -> Result<ModelParts, ModelError> {
    let path = PathBuf::from(&spec.source);
    if spec.source != DESCRIPTOR {
        let why = "there is no such built-in model: use builtin:descriptor, or a model directory".into();
        return Err(ModelError::File { path, why });
    }
    let preprocessing = processor_config::parse(DESCRIPTOR_PREPROCESSING)
        .map_err(|source| ModelError::Processor { path: path.clone(), source })?;
    let digest = Digest(Sha256::digest(DESCRIPTOR_MODEL).into());
    Ok(ModelParts { path, bytes: Some(DESCRIPTOR_MODEL), digest, preprocessing })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint_keys(spec: &ModelSpec) -> Vec<&'static str> {
        check(spec).iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_descriptor_has_no_key_problems() {
        assert_eq!(complaint_keys(&ModelSpec::descriptor()), [""; 0]);
    }

    #[test]
    fn an_unknown_built_in_model_is_refused() {
        let unknown = ModelSpec { source: "builtin:clip".into(), ..ModelSpec::descriptor() };
        assert_eq!(complaint_keys(&unknown), ["source"]);
        assert!(read(&unknown, Path::new("")).unwrap_err().to_string().contains("builtin:descriptor"));
    }

    #[test]
    fn a_built_in_model_has_no_files_to_choose() {
        let with_file = ModelSpec { file: Some("onnx/model.onnx".into()), ..ModelSpec::descriptor() };
        assert_eq!(complaint_keys(&with_file), ["file"]);
    }
}
