//! Image models on the real ONNX Runtime: the conformance suite (`conformance.rs`) over every source, and good and bad
//! graphs.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic, and read the environment")]

mod conformance;
#[path = "../support/mod.rs"]
mod support;

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use connectors::models::{self, ModelError, ModelSpec, runtime};
use pipeline::ImageModel;
use support::onnx::{self, Attribute, node, value};
use support::{cosine, flat, images};
use tempfile::TempDir;

use crate::conformance::{gallery, vectors};

/// Name of the section of every model here.
const NAME: &str = "photo";

fn load(spec: &ModelSpec, base: &Path) -> Result<Arc<dyn ImageModel>, ModelError> {
    runtime::load(&support::runtime_path()).unwrap();
    models::load(NAME, spec, base, &pipeline::Compute::new(2).unwrap())
}

fn descriptor() -> Arc<dyn ImageModel> {
    load(&ModelSpec::descriptor(), Path::new("")).unwrap()
}

fn spec(json: serde_json::Value) -> ModelSpec {
    serde_json::from_value(json).unwrap()
}

/// A folder with the model directory `m`.
fn model_directory(model: &[u8]) -> TempDir {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("m")).unwrap();
    onnx::write_directory(&base.path().join("m"), model);
    base
}

/// Loads `model` from a directory; `json` is the rest of the section.
fn load_bytes(model: &[u8], mut json: serde_json::Value) -> Result<Arc<dyn ImageModel>, ModelError> {
    let base = model_directory(model);
    json["source"] = "m".into();
    load(&spec(json), base.path())
}

fn refusal(model: &[u8]) -> String {
    let error = load_bytes(model, serde_json::json!({})).map(|_| ()).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error} {cause}")
}

mod builtin {
    use std::sync::Arc;

    use pipeline::ImageModel;

    crate::conformance::model_conformance!(open);

    fn open() -> (Arc<dyn ImageModel>, ()) {
        (crate::descriptor(), ())
    }
}

mod directory {
    use std::sync::Arc;

    use pipeline::ImageModel;
    use tempfile::TempDir;

    use crate::support::onnx;

    crate::conformance::model_conformance!(open);

    fn open() -> (Arc<dyn ImageModel>, TempDir) {
        let base = crate::model_directory(&onnx::channel_means(-1));
        let model = crate::load(&crate::spec(serde_json::json!({"source": "m"})), base.path()).unwrap();
        (model, base)
    }
}

#[test]
fn the_descriptor_declares_its_vectors_and_image_size() {
    let model = descriptor();
    assert_eq!((model.card().dim, model.card().resize_to), (397, (112, 112)));
}

#[tokio::test]
async fn altered_copies_find_their_original_first() {
    let model = descriptor();
    let originals = vectors(&*model, gallery()).await;
    for (index, (name, image)) in images::gallery().iter().enumerate() {
        let copies = [
            ("halved", images::halved(image)),
            ("recompressed", images::recompressed(image, 60)),
            ("cropped", images::cropped(image)),
            ("all", images::recompressed(&images::cropped(&images::halved(image)), 60)),
        ];
        for (change, copy) in copies {
            let vector = &vectors(&*model, vec![images::decoded(&copy)]).await[0];
            let own = cosine(vector, &originals[index]);
            let others = originals.iter().enumerate().filter(|(other, _)| *other != index);
            let best = others.map(|(_, original)| cosine(vector, original)).fold(-1.0, f32::max);
            assert!(own > best + 0.1, "{name}, {change}: {own} for itself, {best} for another");
        }
    }
}

#[tokio::test]
async fn an_image_of_one_color_has_a_vector() {
    let grey = vectors(&*descriptor(), vec![flat(50, 40, [128; 3]), flat(1, 1, [0; 3])]).await;
    assert!(grey.iter().all(|vector| (cosine(vector, vector) - 1.0).abs() < 1e-5));
}

#[test]
fn the_committed_descriptor_is_what_its_script_generates() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/models/descriptor");
    let made = tempfile::tempdir().unwrap();
    let made = made.path().join("descriptor.onnx");
    let script = Command::new("python3").arg("-B").arg(folder.join("make.py")).arg(&made).status();
    let Ok(status) = script else {
        eprintln!("python3 is not installed: skipped");
        return;
    };
    assert!(status.success());
    assert!(std::fs::read(made).unwrap() == std::fs::read(folder.join("descriptor.onnx")).unwrap());
}

#[tokio::test]
async fn an_image_without_a_finite_vector_does_not_affect_its_neighbours() {
    // The logarithm of a black channel is minus infinity.
    let nodes = [
        node("GlobalAveragePool", &["x"], "pool", &[]),
        node("Flatten", &["pool"], "means", &[]),
        node("Log", &["means"], "logs", &[]),
    ];
    let graph = onnx::model(&nodes, &[], &[value("x", &[-1, 3, 8, 8])], &[value("logs", &[-1, 3])]);
    let model = load_bytes(&graph, serde_json::json!({})).unwrap();
    let images = vec![flat(8, 8, [10; 3]), flat(8, 8, [0, 9, 9]), flat(8, 8, [20; 3]), flat(0, 3, [0; 3])];
    let found = model.embed(images).await.unwrap();
    let codes: Vec<&str> =
        found.iter().map(|vector| vector.as_ref().map_or_else(|refused| &*refused.code, |_| "")).collect();
    assert_eq!(codes, ["", "vector_not_finite", "", "image_empty"]);
    assert_eq!(found[1].as_ref().unwrap_err().status, 422);
}

#[tokio::test]
async fn a_failed_inference_fails_only_its_batch() {
    // Looks up the brightest value in a table of two rows: 0 and 1 succeed, anything else fails inside the runtime.
    let nodes = [
        node("ReduceMax", &["x"], "top", &[("axes", Attribute::Ints(&[1, 2, 3])), ("keepdims", Attribute::Int(0))]),
        node("Cast", &["top"], "row", &[("to", Attribute::Int(7))]),
        node("Gather", &["table", "row"], "found", &[("axis", Attribute::Int(0))]),
    ];
    let table = onnx::tensor("table", &[2, 2], &[1.0, 0.0, 0.0, 1.0]);
    let graph = onnx::model(&nodes, &[table], &[value("x", &[-1, 3, 8, 8])], &[value("found", &[-1, 2])]);
    let model = load_bytes(&graph, serde_json::json!({})).unwrap();
    assert_eq!(vectors(&*model, vec![flat(8, 8, [1; 3])]).await, [[0.0, 1.0]]);
    for _ in 0..3 {
        assert!(model.embed(vec![flat(8, 8, [200; 3])]).await.is_err());
        assert_eq!(vectors(&*model, vec![flat(8, 8, [0; 3])]).await, [[1.0, 0.0]]);
    }
}

#[tokio::test]
async fn many_callers_share_the_sessions_and_get_their_own_vectors() {
    let two = NonZeroUsize::new(2).unwrap();
    let one = NonZeroUsize::new(1);
    let spec =
        ModelSpec { sessions: two, threads: one, batch: NonZeroUsize::new(4).unwrap(), ..ModelSpec::descriptor() };
    let model = load(&spec, Path::new("")).unwrap();
    let images = gallery();
    let expected = vectors(&*model, images.clone()).await;
    let calls = (0..24).map(|call| {
        let (model, images) = (Arc::clone(&model), images.clone());
        tokio::spawn(async move {
            let picked: Vec<usize> = (0..=call % 7).map(|step| (call * 3 + step) % images.len()).collect();
            let found = vectors(&*model, picked.iter().map(|index| Arc::clone(&images[*index])).collect()).await;
            (picked, found)
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let (picked, found) = call.await.unwrap();
        for (index, vector) in picked.into_iter().zip(found) {
            assert!(cosine(&vector, &expected[index]) > 0.999_99);
        }
    }
}

#[tokio::test]
async fn graphs_of_fixed_batch_are_padded() {
    let model = load_bytes(&onnx::channel_means(3), serde_json::json!({})).unwrap();
    let images = [[30, 0, 0], [0, 30, 0], [0, 0, 30], [30, 40, 0]].map(|color| flat(9, 9, color));
    let found = vectors(&*model, images.to_vec()).await;
    assert_eq!(found, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.6, 0.8, 0.0]]);
}

#[tokio::test]
async fn logits_with_two_empty_sides_are_flattened() {
    let nodes = [node("GlobalAveragePool", &["x"], "softmaxout_1", &[])];
    let graph = onnx::model(&nodes, &[], &[value("x", &[1, 3, 8, 8])], &[value("softmaxout_1", &[1, 3, 1, 1])]);
    let model = load_bytes(&graph, serde_json::json!({})).unwrap();
    assert_eq!(vectors(&*model, vec![flat(8, 8, [3, 4, 0])]).await, [[0.6, 0.8, 0.0]]);
}

#[tokio::test]
async fn the_first_token_is_taken_unless_another_output_is_named() {
    // Row by row as tokens: [N, 3, 8, 8] → [N, 24, 8].
    let shape = [
        node("Flatten", &["x"], "flat", &[("axis", Attribute::Int(3))]),
        node("GlobalAveragePool", &["x"], "pool", &[]),
        node("Flatten", &["pool"], "means", &[]),
        node("Unsqueeze", &["flat", "axes"], "last_hidden_state", &[]),
    ];
    // The axes [0], an int64 tensor, are made as the shape of an empty one.
    let axes = node("Shape", &["empty"], "axes", &[]);
    let empty = onnx::tensor("empty", &[0], &[]);
    let outputs = [value("last_hidden_state", &[1, 24, 8]), value("means", &[1, 3])];
    let graph = onnx::model(&[&[axes][..], &shape[..]].concat(), &[empty], &[value("x", &[1, 3, 8, 8])], &outputs);
    let named = |output: &str| load_bytes(&graph, serde_json::json!({ "output": output }));
    let tokens = named("last_hidden_state").unwrap();
    assert_eq!(tokens.card().dim, 8);
    let means = named("means").unwrap();
    assert_eq!(means.card().dim, 3);
    assert_ne!(tokens.card().fingerprint, means.card().fingerprint);
    // Of rank 2, and therefore preferred.
    assert_eq!(load_bytes(&graph, serde_json::json!({})).unwrap().card().dim, 3);
    let found = vectors(&*tokens, vec![flat(8, 8, [5, 0, 0])]).await;
    assert!(found[0].iter().all(|value| (value - 0.125f32.sqrt()).abs() < 1e-6));
    assert!(named("nothing").map(|_| ()).unwrap_err().to_string().contains("last_hidden_state, means"));
}

#[test]
fn models_that_are_no_image_embedders_are_refused_with_the_reason() {
    let mean = |inputs: &[Vec<u8>]| {
        let nodes = [node("GlobalAveragePool", &["x"], "pool", &[]), node("Flatten", &["pool"], "means", &[])];
        onnx::model(&nodes, &[], inputs, &[value("means", &[-1, 3])])
    };
    let two_inputs = mean(&[value("x", &[-1, 3, 8, 8]), value("input_ids", &[-1, 77])]);
    assert!(refusal(&two_inputs).contains("x, input_ids"));
    assert!(refusal(&mean(&[value("x", &[-1, 3, 9, 9])])).contains("[N, 3, 8, 8]"));
    let rank_two =
        onnx::model(&[node("Relu", &["x"], "y", &[])], &[], &[value("x", &[-1, 3])], &[value("y", &[-1, 3])]);
    assert!(refusal(&rank_two).contains("expected [N, 3, 8, 8]"));
    let map = onnx::model(
        &[node("Relu", &["x"], "y", &[])],
        &[],
        &[value("x", &[-1, 3, 8, 8])],
        &[value("y", &[-1, 3, 8, 8])],
    );
    assert!(refusal(&map).contains("global pool"));
    let whole = onnx::channel_means(-1);
    assert!(refusal(&whole[..whole.len() - 9]).contains("fetch it again"));
    assert!(refusal(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    let unknown =
        onnx::model(&[node("Nonsense", &["x"], "y", &[])], &[], &[value("x", &[-1, 3, 8, 8])], &[value("y", &[-1, 3])]);
    assert!(refusal(&unknown).contains("Nonsense"), "{}", refusal(&unknown));
}

#[test]
fn a_model_that_differs_in_one_byte_is_refused_by_its_pin() {
    let graph = onnx::channel_means(-1);
    let digest = pipeline::Digest(<sha2::Sha256 as sha2::Digest>::digest(&graph).into()).to_string();
    let pin = serde_json::json!({ "sha256": digest });
    let pinned = load_bytes(&graph, pin.clone()).unwrap();
    assert_eq!(pinned.card().fingerprint, load_bytes(&graph, serde_json::json!({})).unwrap().card().fingerprint);
    let mut swapped = graph.clone();
    let name = swapped.windows(5).position(|bytes| bytes == b"graph").unwrap();
    swapped[name] = b'G';
    let error = load_bytes(&swapped, pin).map(|_| ()).unwrap_err();
    assert!(matches!(error, ModelError::Pin { .. }), "{error}");
    let other = load_bytes(&swapped, serde_json::json!({})).unwrap();
    assert_ne!(other.card().fingerprint, pinned.card().fingerprint);
}

#[test]
fn an_incomplete_model_directory_is_refused_with_the_reason() {
    let base = tempfile::tempdir().unwrap();
    let error = |source: &str| {
        let error = load(&spec(serde_json::json!({ "source": source })), base.path()).map(|_| ()).unwrap_err();
        format!("{error} {}", std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default())
    };
    assert!(error("absent").contains("no such directory"));
    std::fs::create_dir(base.path().join("empty")).unwrap();
    assert!(error("empty").contains("preprocessor_config.json"));
    std::fs::write(base.path().join("empty/preprocessor_config.json"), r#"{"image_processor_type": "Odd"}"#).unwrap();
    assert!(error("empty").contains("\"Odd\" is not supported"));
    assert!(error("builtin:clip").contains("builtin:descriptor"));
}
