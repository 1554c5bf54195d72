//! Conformance suite of image models: what every implementation of `pipeline::ImageModel`, from every source, must do.
//!
//! `model_conformance!(open)` makes one test of each behaviour. `open` is a function that loads a model and returns it
//! with whatever must live as long (its folder, for example). A new source of models calls the macro in `main.rs`.

use std::sync::Arc;

use pipeline::{Image, ImageModel};

use crate::support::{cosine, flat, images};

/// The vectors of images that the model must accept.
pub async fn vectors(model: &dyn ImageModel, images: Vec<Arc<Image>>) -> Vec<Vec<f32>> {
    model.embed(images).await.unwrap().into_iter().map(Result::unwrap).collect()
}

pub fn gallery() -> Vec<Arc<Image>> {
    images::gallery().iter().map(|(_, image)| images::decoded(image)).collect()
}

pub async fn vectors_have_the_declared_length(model: &dyn ImageModel) {
    let dim = model.card().dim;
    assert!(dim > 0);
    assert!(vectors(model, gallery()).await.iter().all(|vector| vector.len() == dim));
}

pub async fn vectors_have_unit_length(model: &dyn ImageModel) {
    for vector in vectors(model, gallery()).await {
        assert!((cosine(&vector, &vector) - 1.0).abs() < 1e-5);
    }
}

pub async fn an_image_has_the_same_vector_alone_and_in_a_batch(model: &dyn ImageModel) {
    let images = gallery();
    let together = vectors(model, images.clone()).await;
    for (image, vector) in images.into_iter().zip(&together) {
        let alone = vectors(model, vec![image]).await;
        assert!(cosine(&alone[0], vector) > 0.999_99);
    }
}

pub async fn no_images_give_no_vectors(model: &dyn ImageModel) {
    assert!(model.embed(Vec::new()).await.unwrap().is_empty());
}

pub async fn an_image_without_pixels_is_rejected_and_its_neighbours_are_embedded(model: &dyn ImageModel) {
    let found =
        model.embed(vec![flat(8, 8, [10, 20, 30]), flat(0, 3, [0; 3]), flat(9, 9, [30, 20, 10])]).await.unwrap();
    let rejected: Vec<bool> = found.iter().map(Result::is_err).collect();
    assert_eq!(rejected, [false, true, false]);
    let rejection = found[1].as_ref().unwrap_err();
    assert_eq!((rejection.status, &*rejection.code), (422, "image_empty"));
}

pub async fn an_image_of_one_pixel_has_a_vector(model: &dyn ImageModel) {
    let found = vectors(model, vec![flat(1, 1, [10, 20, 30])]).await;
    assert!((cosine(&found[0], &found[0]) - 1.0).abs() < 1e-5);
}

pub async fn the_fingerprint_is_a_sha256(model: &dyn ImageModel) {
    let fingerprint = &model.card().fingerprint;
    assert!(fingerprint.len() == 64 && fingerprint.bytes().all(|digit| digit.is_ascii_hexdigit()), "{fingerprint}");
}

pub async fn the_card_has_the_name_of_the_section(model: &dyn ImageModel) {
    assert_eq!(&*model.card().name, crate::NAME);
}

/// Makes one test of each behaviour of the suite; `$open` loads a model.
macro_rules! model_conformance {
    ($open:path) => {
        $crate::conformance::model_conformance! { $open:
            vectors_have_the_declared_length,
            vectors_have_unit_length,
            an_image_has_the_same_vector_alone_and_in_a_batch,
            no_images_give_no_vectors,
            an_image_without_pixels_is_rejected_and_its_neighbours_are_embedded,
            an_image_of_one_pixel_has_a_vector,
            the_fingerprint_is_a_sha256,
            the_card_has_the_name_of_the_section,
        }
    };
    ($open:path: $($behaviour:ident,)+) => {
        $(#[tokio::test]
        async fn $behaviour() {
            let (model, _alive) = $open();
            $crate::conformance::$behaviour(&*model).await;
        })+
    };
}
pub(crate) use model_conformance;
