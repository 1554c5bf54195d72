//! `[model.NAME]` as the user writes it.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use pipeline::{Complaint, Digest};
use serde::Deserialize;

/// What `source` begins with when the model is built in.
const BUILTIN: &str = "builtin:";
/// The one built-in model.
pub(super) const DESCRIPTOR: &str = "builtin:descriptor";

/// An image model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// `builtin:descriptor`, or a directory in Hugging Face layout (`preprocessor_config.json`, `onnx/*.onnx`).
    pub source: String,
    /// The model file within the directory, for example `onnx/vision_model_quantized.onnx`. Absent: the first of
    /// `vision_model.onnx`, `onnx/vision_model.onnx`, `model.onnx`, `onnx/model.onnx`.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The output to take the vector from. Absent: `image_embeds`, `pooler_output`, an output of rank 2, the first token
    /// of `last_hidden_state`, or the first output.
    #[serde(default)]
    pub output: Option<String>,
    /// SHA-256 of the model file (followed by its external data files in order of first mention, if it has any); another
    /// file is refused.
    #[serde(default)]
    pub sha256: Option<Digest>,
    /// Copies of the model, each with threads of its own. On a CPU more than one helps little once the cores are busy.
    #[serde(default = "one")]
    pub sessions: NonZeroUsize,
    /// Threads of one session. Absent: the cores divided by `sessions`, at least 1.
    #[serde(default)]
    pub threads: Option<NonZeroUsize>,
    /// Images per run, at most.
    #[serde(default = "default_batch")]
    pub batch: NonZeroUsize,
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

/// CPU throughput is flat from 8 on; larger batches only add latency and memory.
fn default_batch() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(7)
}

/// Beyond this a session's memory grows for no gain.
const LARGEST_BATCH: usize = 64;

impl ModelSpec {
    /// The built-in model with every default.
    #[must_use]
    pub fn descriptor() -> Self {
        Self {
            source: DESCRIPTOR.into(),
            file: None,
            output: None,
            sha256: None,
            sessions: one(),
            threads: None,
            batch: default_batch(),
        }
    }

    /// What is wrong with it, as far as can be told without looking at files.
    #[must_use]
    pub fn check(&self) -> Vec<Complaint> {
        let complain = |key, message: String, remedy: &str| Complaint { key, message, remedy: remedy.into() };
        let mut complaints = Vec::new();
        if self.source.starts_with(BUILTIN) && self.source != DESCRIPTOR {
            let message = format!("no model {:?} is built in", self.source);
            complaints.push(complain("source", message, "use builtin:descriptor, or a model directory"));
        }
        if self.source.is_empty() {
            complaints.push(complain(
                "source",
                "source is empty".into(),
                "use builtin:descriptor, or a model directory",
            ));
        }
        if self.is_builtin() && self.file.is_some() {
            let message = "a built-in model has no files to choose from".into();
            complaints.push(complain("file", message, "remove `file`, or name a model directory as `source`"));
        }
        if let Some(file) = &self.file
            && (file.is_absolute() || file.components().any(|part| part.as_os_str() == ".."))
        {
            let message = format!("{} is not inside the model directory", file.display());
            complaints.push(complain("file", message, "give a path relative to `source`, as onnx/model.onnx"));
        }
        if self.batch.get() > LARGEST_BATCH {
            let message = format!("a batch of {} images is too large, the limit is {LARGEST_BATCH}", self.batch);
            complaints.push(complain("batch", message, "use 8 or 16"));
        }
        complaints
    }

    /// Whether the model is compiled in.
    #[must_use]
    pub fn is_builtin(&self) -> bool {
        self.source.starts_with(BUILTIN)
    }

    /// Threads of each session on a machine with `cores`.
    pub(super) fn threads_of(&self, cores: usize) -> usize {
        self.threads.map_or_else(|| (cores / self.sessions.get()).max(1), NonZeroUsize::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> ModelSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn everything_wrong_is_named() {
        let spec = read(serde_json::json!({"source": "builtin:clip", "file": "../x.onnx", "batch": 100}));
        let keys: Vec<&str> = spec.check().iter().map(|complaint| complaint.key).collect();
        assert_eq!(keys, ["source", "file", "file", "batch"]);
        assert!(ModelSpec::descriptor().check().is_empty());
        assert!(read(serde_json::json!({"source": "models/clip", "file": "onnx/model.onnx"})).check().is_empty());
    }

    #[test]
    fn unknown_keys_and_short_digests_are_refused() {
        for wrong in [
            serde_json::json!({"source": "x", "thread": 2}),
            serde_json::json!({"source": "x", "sha256": "abc"}),
            serde_json::json!({"source": "x", "sessions": 0}),
            serde_json::json!({}),
        ] {
            assert!(serde_json::from_value::<ModelSpec>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn threads_share_the_cores() {
        let mut spec = ModelSpec::descriptor();
        assert_eq!(spec.threads_of(8), 8);
        spec.sessions = NonZeroUsize::MIN.saturating_add(2);
        assert_eq!((spec.threads_of(8), spec.threads_of(1)), (2, 1));
        spec.threads = Some(NonZeroUsize::MIN.saturating_add(4));
        assert_eq!(spec.threads_of(1), 5);
    }
}
