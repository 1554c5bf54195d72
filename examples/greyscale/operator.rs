//! `use = "greyscale"`: an image in, the same image in shades of grey out.

use std::sync::Arc;

use async_trait::async_trait;
use pipeline::{
    BoxError, Compute, Emits, Event, Fault, Image, Operator, OperatorKind, OperatorSpec, Output, Payload, PayloadKind,
    Services, StageTypes, take_kind,
};
use serde::Deserialize;

/// The kind, for the program's list.
pub const KIND: OperatorKind = OperatorKind::of::<GreyscaleSpec>("greyscale", "turns images to shades of grey");

/// The keys of a `greyscale` stage.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GreyscaleSpec {
    /// How much red, green and blue count, in percent. The default is luma of ITU-R BT.601.
    #[serde(default = "bt601")]
    weights: [u8; 3],
}

fn bt601() -> [u8; 3] {
    [30, 59, 11]
}

impl OperatorSpec for GreyscaleSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Image], gives: Emits::Kind(PayloadKind::Image) }
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Greyscale { weights: self.weights, compute: services.compute()? }))
    }
}

/// Nothing survives from image to image.
struct Greyscale {
    weights: [u8; 3],
    compute: Compute,
}

#[async_trait]
impl Operator for Greyscale {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for (event, image) in take_kind(batch, out, image_of) {
            let weights = self.weights;
            // Megapixels take milliseconds: not on the runtime's threads.
            let work = move || greyscale(&image, weights);
            match self.compute.run(event.envelope.lane, work).await.map_err(Fault::retry)? {
                Ok(grey) => out.emit(&event, Payload::Image(Arc::new(grey))).await?,
                Err(why) => out.reject(&event, why),
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

/// The image in grey, with memory and a digest of its own: its name holds the weights, because they change the pixels.
fn greyscale(image: &Image, weights: [u8; 3]) -> Result<Image, pipeline::Rejection> {
    let (whole, _) = image.pixels.as_chunks::<3>();
    let grey = |pixel: &[u8; 3]| {
        let sum: u32 = pixel.iter().zip(weights).map(|(value, weight)| u32::from(*value) * u32::from(weight)).sum();
        [u8::try_from(sum / 100).unwrap_or(u8::MAX); 3]
    };
    let pixels = whole.iter().flat_map(grey).collect();
    image.derive(&format!("greyscale {weights:?}"), (image.width, image.height), pixels)
}

#[cfg(test)]
mod tests {
    use pipeline::testing::run;
    use pipeline::{Digest, Lane, Params, PixelBudget, ProcessResources};

    use super::*;

    /// An image of `pixels` in a row, with room.
    async fn image(budget: &PixelBudget, pixels: &[[u8; 3]]) -> Payload {
        let room = Some(budget.reserve(Lane::Interactive, 3 * pixels.len() as u64).await.unwrap());
        let (width, pixels) = (u32::try_from(pixels.len()).unwrap(), pixels.concat());
        Payload::Image(Arc::new(Image { width, height: 1, pixels, sha256: Digest([1; 32]), room }))
    }

    fn operator() -> Box<dyn Operator> {
        let process = ProcessResources { compute: Some(Compute::new(1).unwrap()), ..ProcessResources::default() };
        GreyscaleSpec { weights: bt601() }.build(&Services::new(process)).unwrap()
    }

    #[tokio::test]
    async fn colours_become_grey() {
        let batch = vec![image(&PixelBudget::default(), &[[255, 0, 0], [0, 255, 0], [10, 10, 10]]).await];
        let ran = run(operator().as_mut(), Params::new(), batch).await;
        let Payload::Image(grey) = &ran.emitted[0].1 else { panic!("no image") };
        assert_eq!(grey.pixels, [[76; 3], [150; 3], [10; 3]].concat());
    }

    #[tokio::test]
    async fn the_grey_image_has_room_and_a_digest_of_its_own() {
        let budget = PixelBudget::default();
        let batch = vec![image(&budget, &[[1, 2, 3]; 2048]).await];
        let ran = run(operator().as_mut(), Params::new(), batch).await;
        let Payload::Image(grey) = &ran.emitted[0].1 else { panic!("no image") };
        assert_ne!(grey.sha256, Digest([1; 32]));
        assert_eq!(budget.taken(), 3 * 2048);
    }

    #[tokio::test]
    async fn what_is_not_an_image_is_rejected_and_the_others_are_done() {
        let batch = vec![Payload::json(serde_json::json!({})), image(&PixelBudget::default(), &[[9; 3]]).await];
        let ran = run(operator().as_mut(), Params::new(), batch).await;
        assert_eq!((ran.emitted.len(), ran.rejected.len(), ran.rejected[0].0), (1, 1, 0));
    }
}
