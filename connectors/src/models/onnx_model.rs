//! The image model: preprocessing on the compute threads, inference on the model's own threads, unit vectors out.
//!
//! The images of a call are split into batches of 16, 8, 4, 2 and 1 (up to `batch`), largest first. So the sessions see
//! five shapes at most and never compute padding; on a CPU an image costs the same in every batch. While one batch is
//! computed, the next is preprocessed.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pipeline::{BoxError, Compute, Digest, Image, ImageModel, Lane, ModelCard, Rejection};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::ModelError;
use super::inference_threads::{Batch, BatchResult, GraphShape, InferenceThreads, SessionConfig};
use super::model_output;
use super::model_source::ModelParts;
use super::preprocess::Preprocessing;
use super::spec::ModelSpec;

/// A loaded model.
pub(super) struct OnnxModel {
    card: ModelCard,
    preprocessing: Arc<Preprocessing>,
    compute: Compute,
    inference: InferenceThreads,
    batches: BatchPlan,
    /// Tensors of past batches for reuse, so that not every batch allocates megabytes.
    spare: Mutex<Vec<Vec<f32>>>,
    spare_limit: usize,
}

impl OnnxModel {
    /// Checks the pinned hash, opens the sessions of the model and runs each once.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub(super) fn load(name: &str, spec: &ModelSpec, parts: ModelParts, compute: &Compute) -> Result<Self, ModelError> {
        if let Some(pinned) = spec.sha256.filter(|pinned| *pinned != parts.digest) {
            return Err(ModelError::Pin { path: parts.path, pinned, found: parts.digest });
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let config = SessionConfig {
            path: parts.path,
            bytes: parts.bytes,
            output: spec.output.clone(),
            input: parts.preprocessing.output(),
            threads: spec.threads_of(cores),
        };
        let count = spec.sessions.get();
        let (inference, shape) = InferenceThreads::start(config, count)?;
        let card = ModelCard {
            name: name.into(),
            dim: shape.dim,
            fingerprint: fingerprint(&parts.digest, &parts.preprocessing, spec).into(),
            resize_to: parts.preprocessing.resize.sides(),
        };
        tracing::info!(model = name, dim = card.dim, fingerprint = %card.fingerprint, sessions = count, "model loaded");
        Ok(Self {
            card,
            preprocessing: Arc::new(parts.preprocessing),
            compute: compute.clone(),
            inference,
            batches: BatchPlan::new(spec.batch.get(), shape),
            spare: Mutex::default(),
            spare_limit: 2 * count,
        })
    }

    /// Preprocesses the images of one batch into a tensor of `padded` slots. Slots without an image are zero.
    async fn prepare(
        &self,
        images: &[Arc<Image>],
        padded: usize,
    ) -> Result<(Vec<f32>, Vec<Option<Rejection>>), BoxError> {
        let mut tensor = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let preprocessing = Arc::clone(&self.preprocessing);
        let images = images.to_vec();
        let prepared = self.compute.run(Lane::Interactive, move || {
            let slot_len = preprocessing.tensor_len();
            tensor.resize(padded * slot_len, 0.0);
            let (filled, rest) = tensor.split_at_mut(images.len() * slot_len);
            rest.fill(0.0);
            let mut rejected = Vec::with_capacity(images.len());
            for (image, slot) in images.iter().zip(filled.chunks_exact_mut(slot_len)) {
                let refused = preprocessing.write(image, slot).err();
                if refused.is_some() {
                    slot.fill(0.0);
                }
                rejected.push(refused);
            }
            (tensor, rejected)
        });
        prepared.await
    }

    /// The vectors of one batch, in order.
    fn collect(&self, result: BatchResult, rejected: Vec<Option<Rejection>>) -> Result<Vec<EmbedResult>, BoxError> {
        self.recycle(result.tensor);
        let rows = result.rows.inspect_err(|error| {
            metrics::counter!("caudal_model_failures_total", "model" => self.card.name.to_string()).increment(1);
            tracing::error!(model = %self.card.name, error = error.to_string(), "inference failed");
        })?;
        let vectors = rows.chunks_exact(self.card.dim).zip(rejected);
        Ok(vectors.map(|(row, refused)| refused.map_or_else(|| model_output::unit(row), Err)).collect())
    }

    fn recycle(&self, tensor: Vec<f32>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < self.spare_limit {
            spare.push(tensor);
        }
    }
}

/// The vector of one image, or why it has none.
type EmbedResult = Result<Vec<f32>, Rejection>;

#[async_trait]
impl ImageModel for OnnxModel {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    async fn embed(&self, images: Vec<Arc<Image>>) -> Result<Vec<EmbedResult>, BoxError> {
        let started = Instant::now();
        let mut running = Vec::new();
        for range in self.batches.split(images.len()) {
            let padded = self.batches.padded(range.len());
            let (tensor, rejected) = self.prepare(&images[range], padded).await?;
            let (reply, result) = oneshot::channel();
            metrics::histogram!("caudal_model_batch_images", "model" => self.card.name.to_string())
                .record(rejected.len() as f64);
            self.inference.submit(Batch { images: padded, tensor, reply }).await?;
            running.push((result, rejected));
        }
        let mut vectors = Vec::with_capacity(images.len());
        for (result, rejected) in running {
            let result = result.await.map_err(|_| "the model's thread ended")?;
            vectors.extend(self.collect(result, rejected)?);
        }
        let seconds = started.elapsed().as_secs_f64();
        metrics::histogram!("caudal_model_embed_seconds", "model" => self.card.name.to_string()).record(seconds);
        Ok(vectors)
    }
}

/// Identifies a vector space: hash of the model's bytes (another variant is another file), its preprocessing, and the
/// output that is taken.
fn fingerprint(model: &Digest, preprocessing: &Preprocessing, spec: &ModelSpec) -> String {
    let output = spec.output.as_deref().unwrap_or_default();
    let text = format!("{model}\n{}\n{output}\n", preprocessing.canonical());
    Digest(Sha256::digest(text).into()).to_string()
}

/// How the images of a call are split into batches.
struct BatchPlan {
    /// Largest batch, a power of two unless the graph fixes another size.
    largest: usize,
    fixed: bool,
}

impl BatchPlan {
    fn new(batch: usize, shape: GraphShape) -> Self {
        match shape.fixed_batch {
            Some(fixed) => Self { largest: fixed, fixed: true },
            None => Self { largest: 1 << batch.max(1).ilog2(), fixed: false },
        }
    }

    fn split(&self, images: usize) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let mut start = 0;
        while start < images {
            let left = images - start;
            let size = if self.fixed { left.min(self.largest) } else { self.largest.min(1 << left.ilog2()) };
            ranges.push(start..start + size);
            start += size;
        }
        ranges
    }

    /// Slots of a batch's tensor.
    fn padded(&self, images: usize) -> usize {
        if self.fixed { self.largest } else { images }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::builtin;
    use super::*;

    fn sizes(plan: &BatchPlan, images: usize) -> Vec<usize> {
        plan.split(images).into_iter().map(|range| range.len()).collect()
    }

    #[test]
    fn batches_are_powers_of_two_and_cover_every_image_once() {
        let plan = BatchPlan::new(12, GraphShape { dim: 1, fixed_batch: None });
        assert_eq!(sizes(&plan, 21), [8, 8, 4, 1]);
        assert_eq!(sizes(&plan, 0), [0; 0]);
        for images in 1..40 {
            let cut = plan.split(images);
            assert_eq!(cut.first().unwrap().start, 0);
            assert!(cut.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(cut.last().unwrap().end, images);
        }
    }

    #[test]
    fn a_graph_of_fixed_batch_is_padded() {
        let plan = BatchPlan::new(8, GraphShape { dim: 1, fixed_batch: Some(3) });
        assert_eq!(sizes(&plan, 7), [3, 3, 1]);
        assert_eq!(plan.padded(1), 3);
    }

    #[test]
    fn another_output_or_preprocessing_is_another_space() {
        let parts = (builtin::SOURCE.read)(&ModelSpec::descriptor(), Path::new("")).unwrap();
        let plain = fingerprint(&parts.digest, &parts.preprocessing, &ModelSpec::descriptor());
        assert_eq!(plain.len(), 64);
        let named = ModelSpec { output: Some("image_embeds".into()), ..ModelSpec::descriptor() };
        assert_ne!(plain, fingerprint(&parts.digest, &parts.preprocessing, &named));
        let mut other = parts.preprocessing.clone();
        other.scale[0] *= 2.0;
        assert_ne!(plain, fingerprint(&parts.digest, &other, &ModelSpec::descriptor()));
        assert_ne!(plain, fingerprint(&Digest([0; 32]), &parts.preprocessing, &ModelSpec::descriptor()));
    }
}
