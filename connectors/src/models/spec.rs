//! The `[model.NAME]` section. Its checks are in `mod.rs`, beside the list of sources.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use pipeline::Digest;
use serde::Deserialize;

/// `batch` if the config sets none: CPU throughput is flat from 8 on, larger batches only add latency and memory.
pub(super) const DEFAULT_BATCH: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// An image model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// `builtin:descriptor`, or a directory in Hugging Face layout (`preprocessor_config.json`, `onnx/*.onnx`).
    pub source: String,
    /// The model file in the directory, for example `onnx/vision_model_quantized.onnx`. Absent: the first of
    /// `vision_model.onnx`, `onnx/vision_model.onnx`, `model.onnx`, `onnx/model.onnx`.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The output to take the vector from. Absent: `image_embeds`, `pooler_output`, an output of rank 2, the first
    /// token of `last_hidden_state`, or the first output.
    #[serde(default)]
    pub output: Option<String>,
    /// SHA-256 of the model file (followed by its external data files in order of first mention, if it has any);
    /// another file is refused.
    #[serde(default)]
    pub sha256: Option<Digest>,
    /// Copies of the model in memory, each with its own threads. On a CPU, more than one helps little once the cores
    /// are busy.
    #[serde(default = "one")]
    pub sessions: NonZeroUsize,
    /// Threads of one session. Absent: the cores divided by `sessions`, at least 1.
    #[serde(default)]
    pub threads: Option<NonZeroUsize>,
    /// Images per inference, at most.
    #[serde(default = "default_batch")]
    pub batch: NonZeroUsize,
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

fn default_batch() -> NonZeroUsize {
    DEFAULT_BATCH
}

impl ModelSpec {
    /// Threads of each session on a machine with `cores`.
    pub(super) fn threads_of(&self, cores: usize) -> usize {
        self.threads.map_or_else(|| (cores / self.sessions.get()).max(1), NonZeroUsize::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn spec(json: serde_json::Value) -> ModelSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn sessions_share_the_cores_and_have_one_thread_at_least() {
        assert_eq!(spec(serde_json::json!({"source": "x"})).threads_of(8), 8);
        let three = spec(serde_json::json!({"source": "x", "sessions": 3}));
        assert_eq!((three.threads_of(8), three.threads_of(1)), (2, 1));
    }

    #[test]
    fn a_configured_number_of_threads_is_used_as_it_is() {
        assert_eq!(spec(serde_json::json!({"source": "x", "sessions": 3, "threads": 5})).threads_of(1), 5);
    }
}
