//! Test doubles: image models and vector indexes, named for the behaviour they simulate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pipeline::{
    BoxError, Digest, Hit, Image, ImageModel, IndexError, ModelCard, Nearest, Point, ProcessResources, Rejection,
    Services, Space, TENANT_PARAM, Vector, VectorIndex, point_id,
};
use serde_json::{Value, json};

type Points = BTreeMap<uuid::Uuid, Point>;
type Embedded = Result<Vec<Result<Vec<f32>, Rejection>>, BoxError>;

fn card() -> ModelCard {
    ModelCard { name: "photo".into(), dim: 3, fingerprint: "mean-1".into(), resize_to: (224, 224) }
}

/// An image of one colour.
pub(crate) fn image_of_colour(colour: [u8; 3]) -> Image {
    Image { width: 2, height: 2, pixels: colour.repeat(4), sha256: Digest([colour[0]; 32]), room: None }
}

/// A vector whose digest is derived from its values.
pub(crate) fn vector(values: &[f32]) -> Vector {
    let mut digest = [0; 32];
    for (byte, value) in digest.iter_mut().zip(values.iter().flat_map(|value| value.to_le_bytes())) {
        *byte = value;
    }
    let (model, fingerprint) = ("photo".into(), "test-model".into());
    Vector { values: values.to_vec(), model, fingerprint, sha256: Digest(digest) }
}

pub(crate) fn services_with(model: Arc<dyn ImageModel>) -> Services {
    let compute = pipeline::Compute::new(2).unwrap();
    let process = ProcessResources { compute: Some(compute), ..ProcessResources::default() };
    Services::new(process).offer_named("photo", model)
}

pub(crate) fn services_with_index(index: Arc<dyn VectorIndex>) -> Services {
    Services::default().offer(index)
}

/// The mean colour as a unit vector.
fn mean(image: &Image) -> Vec<f32> {
    let count = image.pixels.len() as f32 / 3.0;
    let sum = |channel: usize| image.pixels.iter().skip(channel).step_by(3).map(|&v| f32::from(v)).sum::<f32>();
    let values = [0, 1, 2].map(|channel| sum(channel) / count);
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.map(|value| value / length).into()
}

macro_rules! model {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* }, |$self:ident, $images:ident| $body:expr) => {
        $(#[$doc])*
        pub(crate) struct $name { card: ModelCard, $($field: $type),* }

        impl $name {
            pub(crate) fn new($($field: $type),*) -> Self {
                Self { card: card(), $($field),* }
            }
        }

        #[async_trait]
        impl ImageModel for $name {
            fn card(&self) -> &ModelCard {
                &self.card
            }

            async fn embed(&$self, $images: Vec<Arc<Image>>) -> Embedded {
                $body
            }
        }
    };
}

model!(
    /// Returns the mean colour.
    MeanModel {},
    |self, images| Ok(images.iter().map(|image| Ok(mean(image))).collect())
);

model!(
    /// Returns NaN for the image at one index of every batch.
    NanModel { place: usize },
    |self, images| {
        let value = |(place, image): (usize, &Arc<Image>)| {
            Ok(if place == self.place { vec![f32::NAN; 3] } else { mean(image) })
        };
        Ok(images.iter().enumerate().map(value).collect())
    }
);

model!(
    /// Returns vectors shorter than its card declares.
    ShortModel {},
    |self, images| Ok(images.iter().map(|_| Ok(vec![1.0])).collect())
);

model!(
    /// Fails every call.
    FailingModel {},
    |self, _images| Err("the inference failed".into())
);

/// Exact search over all points, in memory.
#[derive(Default)]
pub(crate) struct ExactIndex {
    collections: Mutex<BTreeMap<String, (Space, Points)>>,
}

impl ExactIndex {
    pub(crate) fn points(&self, collection: &str) -> Vec<Point> {
        self.collections.lock().unwrap()[collection].1.values().cloned().collect()
    }

    pub(crate) fn add(&self, collection: &str, report: &str, values: &[f32]) {
        let made = vector(values);
        let space = Space { fingerprint: made.fingerprint.to_string(), dim: values.len() };
        let fields = [("report_id".to_owned(), json!(report))].into_iter().collect();
        let point = Point { id: point_id("", report, &made.sha256), values: values.to_vec(), fields };
        self.store(collection, &space, vec![point]).unwrap();
    }

    fn store(&self, collection: &str, space: &Space, points: Vec<Point>) -> Result<(), IndexError> {
        let mut collections = self.collections.lock().unwrap();
        let (existing, stored) =
            collections.entry(collection.to_owned()).or_insert_with(|| (space.clone(), BTreeMap::new()));
        same_space(collection, existing, space)?;
        stored.extend(points.into_iter().map(|point| (point.id, point)));
        Ok(())
    }
}

fn same_space(collection: &str, held: &Space, asked: &Space) -> Result<(), IndexError> {
    if held == asked {
        return Ok(());
    }
    Err(IndexError::OtherModel { collection: collection.into(), holds: (held.fingerprint.clone(), held.dim) })
}

#[async_trait]
impl VectorIndex for ExactIndex {
    async fn upsert(&self, collection: &str, space: &Space, points: Vec<Point>) -> Result<(), IndexError> {
        self.store(collection, space, points)
    }

    async fn search(&self, name: &str, space: &Space, nearest: Nearest<'_>) -> Result<Vec<Hit>, IndexError> {
        let collections = self.collections.lock().unwrap();
        let Some((held, points)) = collections.get(name) else { return Ok(Vec::new()) };
        same_space(name, held, space)?;
        let score = |point: &Point| point.values.iter().zip(nearest.vector).map(|(a, b)| a * b).sum();
        let mut hits: Vec<Hit> = points
            .values()
            .filter(|point| point.fields.get(TENANT_PARAM).and_then(Value::as_str) == nearest.tenant)
            .map(|point| Hit { id: point.id, score: score(point), fields: point.fields.clone() })
            .collect();
        hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        hits.truncate(nearest.limit);
        Ok(hits)
    }

    async fn ready(&self) -> Result<(), BoxError> {
        Ok(())
    }

    async fn close(&self) {}
}

/// Every call fails as unavailable.
pub(crate) struct UnavailableIndex;

#[async_trait]
impl VectorIndex for UnavailableIndex {
    async fn upsert(&self, _: &str, _: &Space, _: Vec<Point>) -> Result<(), IndexError> {
        Err(IndexError::Unavailable("no route to the index".into()))
    }

    async fn search(&self, _: &str, _: &Space, _: Nearest<'_>) -> Result<Vec<Hit>, IndexError> {
        Err(IndexError::Unavailable("no route to the index".into()))
    }

    async fn ready(&self) -> Result<(), BoxError> {
        Err("no route to the index".into())
    }

    async fn close(&self) {}
}

/// Returns from no search until the expected number of searches are waiting.
pub(crate) struct GatheringIndex {
    barrier: tokio::sync::Barrier,
}

impl GatheringIndex {
    pub(crate) fn of(searches: usize) -> Self {
        Self { barrier: tokio::sync::Barrier::new(searches) }
    }
}

#[async_trait]
impl VectorIndex for GatheringIndex {
    async fn upsert(&self, _: &str, _: &Space, _: Vec<Point>) -> Result<(), IndexError> {
        Ok(())
    }

    async fn search(&self, _: &str, _: &Space, _: Nearest<'_>) -> Result<Vec<Hit>, IndexError> {
        self.barrier.wait().await;
        Ok(Vec::new())
    }

    async fn ready(&self) -> Result<(), BoxError> {
        Ok(())
    }

    async fn close(&self) {}
}
