//! An image model: preprocessing on the computing threads, inference on the sessions' own, vectors out.
//!
//! A call's images are cut into runs of 16, 8, 4, 2 and 1 (as far as `batch` allows), largest first, so that the sessions
//! see five shapes at most and never compute padding; on a CPU an image costs the same in every batch. While one run is
//! computed the next is preprocessed.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pipeline::{BoxError, Compute, Digest, Image, ImageModel, Lane, ModelCard, Rejection};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::preprocess::Preprocessing;
use super::session::{Batch, Done, Plan, Sessions, Shape};
use super::spec::{DESCRIPTOR, ModelSpec};
use super::{ModelError, ProcessorError, files, output, processor_config};

const DESCRIPTOR_MODEL: &[u8] = include_bytes!("descriptor/descriptor.onnx");
const DESCRIPTOR_PREPROCESSING: &str = include_str!("descriptor/preprocessor_config.json");

/// A loaded model.
pub struct OnnxModel {
    card: ModelCard,
    preprocessing: Arc<Preprocessing>,
    compute: Compute,
    sessions: Sessions,
    runs: Runs,
    /// Tensors of past runs, so that megabytes are not asked of the system for every batch.
    spare: Mutex<Vec<Vec<f32>>>,
    spare_limit: usize,
}

/// Where a model's parts come from.
struct Source {
    path: PathBuf,
    bytes: Option<&'static [u8]>,
    digest: Digest,
    preprocessing: Preprocessing,
}

impl OnnxModel {
    /// Reads, hashes, opens and warms up the model of `[model.NAME]`; a relative directory is taken from `base`.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn load(name: &str, spec: &ModelSpec, base: &Path, compute: &Compute) -> Result<Self, ModelError> {
        let source = if spec.is_builtin() { builtin(spec)? } else { directory(spec, base)? };
        if let Some(pinned) = spec.sha256.filter(|pinned| *pinned != source.digest) {
            return Err(ModelError::Pin { path: source.path, pinned, found: source.digest });
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let plan = Plan {
            path: source.path,
            bytes: source.bytes,
            output: spec.output.clone(),
            input: source.preprocessing.output(),
            threads: spec.threads_of(cores),
        };
        let count = spec.sessions.get();
        let (sessions, shape) = Sessions::start(plan, count)?;
        let card = ModelCard {
            name: name.into(),
            dim: shape.dim,
            fingerprint: fingerprint(&source.digest, &source.preprocessing, spec).into(),
            resize_to: source.preprocessing.resize.sides(),
        };
        tracing::info!(model = name, dim = card.dim, fingerprint = %card.fingerprint, sessions = count, "model loaded");
        Ok(Self {
            card,
            preprocessing: Arc::new(source.preprocessing),
            compute: compute.clone(),
            sessions,
            runs: Runs::new(spec.batch.get(), shape),
            spare: Mutex::default(),
            spare_limit: 2 * count,
        })
    }

    /// Preprocesses the images of one run into a tensor of `padded` slots. Slots without an image are zero.
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

    /// The vectors of one run, in order.
    fn collect(&self, done: Done, rejected: Vec<Option<Rejection>>) -> Result<Vec<Embedded>, BoxError> {
        self.recycle(done.tensor);
        let rows = done.rows.inspect_err(|error| {
            metrics::counter!("model_failures_total", "model" => self.card.name.to_string()).increment(1);
            tracing::error!(model = %self.card.name, error = error.to_string(), "inference failed");
        })?;
        let vectors = rows.chunks_exact(self.card.dim).zip(rejected);
        Ok(vectors.map(|(row, refused)| refused.map_or_else(|| output::unit(row), Err)).collect())
    }

    fn recycle(&self, tensor: Vec<f32>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < self.spare_limit {
            spare.push(tensor);
        }
    }
}

/// What becomes of one image.
type Embedded = Result<Vec<f32>, Rejection>;

#[async_trait]
impl ImageModel for OnnxModel {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    async fn embed(&self, images: Vec<Arc<Image>>) -> Result<Vec<Embedded>, BoxError> {
        let started = Instant::now();
        let mut running = Vec::new();
        for range in self.runs.cut(images.len()) {
            let padded = self.runs.padded(range.len());
            let (tensor, rejected) = self.prepare(&images[range], padded).await?;
            let (reply, done) = oneshot::channel();
            metrics::histogram!("model_batch_images", "model" => self.card.name.to_string())
                .record(rejected.len() as f64);
            self.sessions.submit(Batch { images: padded, tensor, reply }).await?;
            running.push((done, rejected));
        }
        let mut vectors = Vec::with_capacity(images.len());
        for (done, rejected) in running {
            let done = done.await.map_err(|_| "the model's thread ended")?;
            vectors.extend(self.collect(done, rejected)?);
        }
        let seconds = started.elapsed().as_secs_f64();
        metrics::histogram!("model_embed_seconds", "model" => self.card.name.to_string()).record(seconds);
        Ok(vectors)
    }
}

fn builtin(spec: &ModelSpec) -> Result<Source, ModelError> {
    let path = PathBuf::from(&spec.source);
    if spec.source != DESCRIPTOR {
        let why = "no such model is built in: use builtin:descriptor, or a model directory".into();
        return Err(ModelError::File { path, why });
    }
    let preprocessing = processor_config::parse(DESCRIPTOR_PREPROCESSING)
        .map_err(|source| ModelError::Processor { path: path.clone(), source })?;
    let digest = Digest(Sha256::digest(DESCRIPTOR_MODEL).into());
    Ok(Source { path, bytes: Some(DESCRIPTOR_MODEL), digest, preprocessing })
}

fn directory(spec: &ModelSpec, base: &Path) -> Result<Source, ModelError> {
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
    let files = files::open(&directory, spec.file.as_deref())?;
    Ok(Source { path: files.path, bytes: None, digest: files.digest, preprocessing })
}

/// What tells one vector space from another: the model's bytes (another variant is another file), what happens to an image
/// before, and which output is taken.
fn fingerprint(model: &Digest, preprocessing: &Preprocessing, spec: &ModelSpec) -> String {
    let output = spec.output.as_deref().unwrap_or_default();
    let text = format!("{model}\n{}\n{output}\n", preprocessing.canonical());
    Digest(Sha256::digest(text).into()).to_string()
}

/// How a call's images are cut into runs.
struct Runs {
    /// Largest run, a power of two unless the graph insists on another.
    largest: usize,
    fixed: bool,
}

impl Runs {
    fn new(batch: usize, shape: Shape) -> Self {
        match shape.fixed_batch {
            Some(fixed) => Self { largest: fixed, fixed: true },
            None => Self { largest: 1 << batch.max(1).ilog2(), fixed: false },
        }
    }

    fn cut(&self, images: usize) -> Vec<Range<usize>> {
        let mut cuts = Vec::new();
        let mut start = 0;
        while start < images {
            let left = images - start;
            let size = if self.fixed { left.min(self.largest) } else { self.largest.min(1 << left.ilog2()) };
            cuts.push(start..start + size);
            start += size;
        }
        cuts
    }

    /// Slots of a run's tensor.
    fn padded(&self, images: usize) -> usize {
        if self.fixed { self.largest } else { images }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(runs: &Runs, images: usize) -> Vec<usize> {
        runs.cut(images).into_iter().map(|range| range.len()).collect()
    }

    #[test]
    fn runs_are_powers_of_two_and_cover_every_image_once() {
        let runs = Runs::new(12, Shape { dim: 1, fixed_batch: None });
        assert_eq!(sizes(&runs, 21), [8, 8, 4, 1]);
        assert_eq!(sizes(&runs, 0), [0; 0]);
        for images in 1..40 {
            let cut = runs.cut(images);
            assert_eq!(cut.first().unwrap().start, 0);
            assert!(cut.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(cut.last().unwrap().end, images);
        }
    }

    #[test]
    fn a_graph_of_fixed_batch_is_padded() {
        let runs = Runs::new(8, Shape { dim: 1, fixed_batch: Some(3) });
        assert_eq!(sizes(&runs, 7), [3, 3, 1]);
        assert_eq!(runs.padded(1), 3);
    }

    #[test]
    fn another_output_or_preprocessing_is_another_space() {
        let source = builtin(&ModelSpec::descriptor()).unwrap();
        let plain = fingerprint(&source.digest, &source.preprocessing, &ModelSpec::descriptor());
        assert_eq!(plain.len(), 64);
        let named = ModelSpec { output: Some("image_embeds".into()), ..ModelSpec::descriptor() };
        assert_ne!(plain, fingerprint(&source.digest, &source.preprocessing, &named));
        let mut other = source.preprocessing.clone();
        other.scale[0] *= 2.0;
        assert_ne!(plain, fingerprint(&source.digest, &other, &ModelSpec::descriptor()));
        assert_ne!(plain, fingerprint(&Digest([0; 32]), &source.preprocessing, &ModelSpec::descriptor()));
    }
}
