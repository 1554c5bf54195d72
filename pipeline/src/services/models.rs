//! Image models: turn decoded images into vectors.

use std::sync::Arc;

use async_trait::async_trait;

use crate::fault::{BoxError, Rejection};
use crate::payload::Image;
use crate::registry::Service;

/// What identifies a model and the vectors it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// Name of the `[model.NAME]` section.
    pub name: Arc<str>,
    /// Length of its vectors.
    pub dim: usize,
    /// SHA-256 over model file and preprocessing, hexadecimal.
    pub fingerprint: Arc<str>,
    /// Sides `(width, height)` that an image is resized to before the crop. An image decoded to at least twice this size
    /// shows the model all that it could see.
    pub resize_to: (u32, u32),
}

/// Turns images into vectors.
#[async_trait]
pub trait ImageModel: Send + Sync {
    /// Identity and shape.
    fn card(&self) -> &ModelCard;

    /// Embeds `b` images into `b` unit vectors of `card().dim` f32, in order.
    ///
    /// An image without a finite vector is an inner error; the others are embedded all the same.
    ///
    /// # Errors
    /// If the inference as a whole failed.
    async fn embed(&self, images: Vec<Arc<Image>>) -> Result<Vec<Result<Vec<f32>, Rejection>>, BoxError>;
}

impl Service for dyn ImageModel {
    const WHAT: &'static str = "model";
    const SECTION: &'static str = "model";
}
