//! `use = "embed"`: computes the embedding of each image with an image model.
//!
//! Up to 16 waiting images are embedded by one call of the model. Shapes: `b` images in, `b` unit vectors of
//! `card().dim` f32 out. An image without a finite vector is rejected alone; a failed call retries the whole batch.

use std::sync::Arc;

use async_trait::async_trait;
use pipeline::{
    Batching, BoxError, Emits, Event, Fault, Image, ImageModel, ModelCard, Need, Operator, OperatorKind, OperatorSpec,
    Output, Payload, PayloadKind, Rejection, Services, StageTypes, Vector, take_kind,
};
use serde::Deserialize;

/// `use = "embed"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<EmbedSpec>("embed", "embeds images as unit vectors with an image model");

/// Default images per call: more gain nothing on a CPU, and the first image waits for the last.
const DEFAULT_BATCH: usize = 16;

/// The keys of an `embed` stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedSpec {
    /// The `[model.NAME]` to embed with.
    model: String,
}

impl OperatorSpec for EmbedSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Image], gives: Emits::Kind(PayloadKind::Vector) }
    }

    fn batching(&self) -> Batching {
        Batching::greedy(DEFAULT_BATCH)
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::named::<dyn ImageModel>("model", &self.model)]
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Embed { model: services.get_named(&self.model)? }))
    }
}

/// Shares one model with the other instances; keeps no state between batches.
struct Embed {
    model: Arc<dyn ImageModel>,
}

#[async_trait]
impl Operator for Embed {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        let (events, images): (Vec<Event>, Vec<Arc<Image>>) = take_kind(batch, out, image_of).into_iter().unzip();
        if images.is_empty() {
            return Ok(());
        }
        let digests: Vec<_> = images.iter().map(|image| image.sha256).collect();
        let results = self.model.embed(images).await.map_err(Fault::Retry)?;
        if results.len() != events.len() {
            return Err(Fault::fatal(format!(
                "the model returned {} vectors for {} images",
                results.len(),
                events.len()
            )));
        }
        let card = self.model.card();
        for ((event, sha256), result) in events.iter().zip(digests).zip(results) {
            match result.and_then(|values| usable(values, card)) {
                Err(why) => out.reject(event, why),
                Ok(values) => {
                    let (model, fingerprint) = (Arc::clone(&card.name), Arc::clone(&card.fingerprint));
                    out.emit(event, Payload::Vector(Arc::new(Vector { values, model, fingerprint, sha256 }))).await?;
                }
            }
        }
        Ok(())
    }
}

fn image_of(payload: &Payload) -> Option<Arc<Image>> {
    match payload {
        Payload::Image(image) => Some(Arc::clone(image)),
        _ => None,
    }
}

/// `values` if they match the model's card: `dim` finite numbers.
fn usable(values: Vec<f32>, card: &ModelCard) -> Result<Vec<f32>, Rejection> {
    if values.len() != card.dim {
        let detail = format!("model {} returned {} numbers; expected {}", card.name, values.len(), card.dim);
        return Err(Rejection::internal(detail));
    }
    if values.iter().any(|value| !value.is_finite()) {
        let detail = format!("model {} returned no finite vector for this image; try another image", card.name);
        return Err(Rejection::unusable("vector_not_finite", detail));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_doubles::{FailingModel, MeanModel, NanModel, ShortModel, image_of_colour, services_with};
    use pipeline::testing::run;
    use pipeline::{DeclaredNames, Params};

    fn operator(model: Arc<dyn ImageModel>) -> Box<dyn Operator> {
        EmbedSpec { model: "photo".into() }.build(&services_with(model)).unwrap()
    }

    fn images() -> Vec<Payload> {
        [10, 200, 77].map(|level| Payload::Image(Arc::new(image_of_colour([level, 0, 255])))).into()
    }

    fn vectors(emitted: &[(usize, Payload)]) -> Vec<(usize, Arc<Vector>)> {
        let vector = |payload: &Payload| match payload {
            Payload::Vector(vector) => Arc::clone(vector),
            other => panic!("{other:?}"),
        };
        emitted.iter().map(|(index, payload)| (*index, vector(payload))).collect()
    }

    #[tokio::test]
    async fn an_image_embeds_the_same_alone_and_in_a_batch() {
        let mut embed = operator(Arc::new(MeanModel::new()));
        let together = vectors(&run(embed.as_mut(), Params::new(), images()).await.emitted);
        assert_eq!(together.len(), 3);
        for (index, image) in images().into_iter().enumerate() {
            let alone = vectors(&run(embed.as_mut(), Params::new(), vec![image]).await.emitted);
            assert_eq!(alone[0].1.values, together[index].1.values);
            assert_eq!(together[index].0, index);
        }
        assert_eq!((&*together[0].1.model, &*together[0].1.fingerprint), ("photo", "mean-1"));
    }

    #[tokio::test]
    async fn an_image_without_a_finite_vector_is_rejected_and_its_neighbours_are_embedded() {
        let ran = run(operator(Arc::new(NanModel::new(1))).as_mut(), Params::new(), images()).await;
        assert_eq!(vectors(&ran.emitted).iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2]);
        assert_eq!((ran.rejected[0].0, ran.rejected[0].1.status), (1, 422));
    }

    #[tokio::test]
    async fn a_vector_of_the_wrong_length_is_rejected() {
        let ran = run(operator(Arc::new(ShortModel::new())).as_mut(), Params::new(), images()).await;
        assert!(ran.emitted.is_empty());
        assert_eq!(ran.rejected.iter().map(|(_, why)| why.status).collect::<Vec<_>>(), [500; 3]);
    }

    #[tokio::test]
    async fn a_failed_inference_retries_the_batch() {
        let ran = run(operator(Arc::new(FailingModel::new())).as_mut(), Params::new(), images()).await;
        assert!(matches!(ran.fault, Some(Fault::Retry(_))));
        assert!(ran.emitted.is_empty() && ran.rejected.is_empty());
    }

    #[tokio::test]
    async fn another_payload_is_rejected_and_the_images_are_embedded() {
        let mut batch = images();
        batch.insert(0, Payload::json(serde_json::json!({})));
        let ran = run(operator(Arc::new(MeanModel::new())).as_mut(), Params::new(), batch).await;
        assert_eq!((ran.emitted.len(), ran.rejected.len(), ran.rejected[0].0), (3, 1, 0));
    }

    #[test]
    fn an_undeclared_model_is_a_problem() {
        let spec = EmbedSpec { model: "phto".into() };
        let names =
            DeclaredNames { sections: [("model", ["photo".to_owned()].into())].into(), ..DeclaredNames::default() };
        assert!((&spec as &dyn OperatorSpec).key_problems(&names)[0].remedy.contains("photo"));
    }
}
