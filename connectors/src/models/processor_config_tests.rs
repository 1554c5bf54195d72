//! Tests with the configurations that the model families published.

use super::*;

fn geometry_of(text: &str) -> (Resize, Filter, Option<(u32, u32)>) {
    let read = parse(text).unwrap();
    (read.resize, read.filter, read.crop)
}

/// `(v / 255 - mean) / std` for `v` = 255 in every channel.
fn white(text: &str) -> [f32; 3] {
    let read = parse(text).unwrap();
    std::array::from_fn(|channel| read.scale[channel] * 255.0 + read.offset[channel])
}

fn assert_close(found: [f32; 3], expected: [f32; 3]) {
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} is not {expected:?}");
}

const SQUARE_224: Resize = Resize::Exact { width: 224, height: 224 };

#[test]
fn clip_as_openai_published_it() {
    let text = r#"{"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3, "size": 224}"#;
    assert_eq!(geometry_of(text), (Resize::Shortest(224), Filter::Bicubic, Some((224, 224))));
    assert_close(white(text), [1.930_336_2, 2.074_883_6, 2.145_897]);
}

#[test]
fn clip_as_it_is_written_today() {
    let text = r#"{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true,
        "do_normalize": true, "do_rescale": true, "do_resize": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "CLIPImageProcessorFast",
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 224}}"#;
    assert_eq!(geometry_of(text), (Resize::Shortest(224), Filter::Bicubic, Some((224, 224))));
}

#[test]
fn siglip_forces_both_sides() {
    let text = r#"{"do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor", "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor", "resample": 3, "rescale_factor": 0.00392156862745098,
        "size": {"height": 224, "width": 224}}"#;
    assert_eq!(geometry_of(text), (SQUARE_224, Filter::Bicubic, None));
    assert_close(white(text), [1.0; 3]);
    let old =
        text.replace("image_mean", "mean").replace("image_std", "std").replace("0.5, 0.5, 0.5", "0.25, 0.25, 0.25");
    assert_close(white(&old), [3.0; 3]);
}

#[test]
fn siglip2_of_fixed_size_is_bilinear_and_naflex_is_refused() {
    let text = r#"{"do_convert_rgb": null, "do_normalize": true, "do_rescale": true, "do_resize": true,
        "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor", "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor", "resample": 2, "rescale_factor": 0.00392156862745098,
        "size": {"height": 224, "width": 224}}"#;
    assert_eq!(geometry_of(text), (SQUARE_224, Filter::Bilinear, None));
    let naflex = r#"{"do_convert_rgb": null, "do_normalize": true, "do_rescale": true, "do_resize": true,
        "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "Siglip2ImageProcessor", "image_std": [0.5, 0.5, 0.5],
        "max_num_patches": 256, "patch_size": 16, "processor_class": "Siglip2Processor", "resample": 2,
        "rescale_factor": 0.00392156862745098}"#;
    assert!(parse(naflex).unwrap_err().to_string().contains("NaFlex"));
}

#[test]
fn dinov2_resizes_to_256_and_crops_to_224() {
    let text = r#"{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true,
        "do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "BitImageProcessor", "image_std": [0.229, 0.224, 0.225], "resample": 3,
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 256}}"#;
    assert_eq!(geometry_of(text), (Resize::Shortest(256), Filter::Bicubic, Some((224, 224))));
    assert_close(white(text), [2.248_908_4, 2.428_571_5, 2.64]);
}

#[test]
fn dinov3_has_keys_that_are_null() {
    let text = r#"{"crop_size": null, "data_format": "channels_first", "default_to_square": true, "device": null,
        "disable_grouping": null, "do_center_crop": null, "do_convert_rgb": null, "do_normalize": true,
        "do_rescale": true, "do_resize": true, "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "DINOv3ViTImageProcessorFast", "image_std": [0.229, 0.224, 0.225],
        "input_data_format": null, "resample": 2, "rescale_factor": 0.00392156862745098, "return_tensors": null,
        "size": {"height": 224, "width": 224}}"#;
    assert_eq!(geometry_of(text), (SQUARE_224, Filter::Bilinear, None));
}

#[test]
fn mobileclip_does_not_normalise() {
    let text = r#"{"crop_size": {"height": 256, "width": 256}, "do_center_crop": true, "do_convert_rgb": true,
        "do_normalize": false, "do_rescale": true, "do_resize": true, "image_mean": [0, 0, 0],
        "image_processor_type": "CLIPFeatureExtractor", "image_std": [1, 1, 1], "resample": 2,
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 256}}"#;
    assert_eq!(geometry_of(text), (Resize::Shortest(256), Filter::Bilinear, Some((256, 256))));
    assert_close(white(text), [1.0; 3]);
}

#[test]
fn vit_takes_a_number_as_both_sides() {
    let text = r#"{"do_normalize": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "ViTFeatureExtractor", "image_std": [0.5, 0.5, 0.5], "size": 224}"#;
    assert_eq!(geometry_of(text), (SQUARE_224, Filter::Bilinear, None));
}

#[test]
fn resnet_and_convnext_crop_by_a_share() {
    let text = r#"{"crop_pct": 0.875, "do_normalize": true, "do_resize": true,
        "feature_extractor_type": "ConvNextFeatureExtractor", "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 224}"#;
    assert_eq!(geometry_of(text), (Resize::Shortest(256), Filter::Bicubic, Some((224, 224))));
    let large = text.replace("\"size\": 224", "\"size\": {\"shortest_edge\": 384}");
    assert_eq!(geometry_of(&large), (Resize::Exact { width: 384, height: 384 }, Filter::Bicubic, None));
}

#[test]
fn efficientnet_divides_twice() {
    let text = r#"{"crop_size": {"height": 289, "width": 289}, "do_center_crop": false, "do_normalize": true,
        "do_rescale": true, "do_resize": true, "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "EfficientNetImageProcessor", "image_std": [0.47853944, 0.4732864, 0.47434163],
        "include_top": true, "resample": 0, "rescale_factor": 0.00392156862745098, "rescale_offset": false,
        "size": {"height": 224, "width": 224}}"#;
    assert_eq!(geometry_of(text), (SQUARE_224, Filter::Nearest, None));
    assert_close(white(text), [2.248_908_7, 2.428_571, 2.639_999_4]);
    let without = text.replace("\"include_top\": true", "\"include_top\": false");
    assert_close(white(&without), [1.076_191_2, 1.149_410_8, 1.252_262]);
}

#[test]
fn mobilenet_and_mobilevit() {
    let text = r#"{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_normalize": true,
        "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "MobileNetV2ImageProcessor", "image_std": [0.5, 0.5, 0.5], "resample": 2,
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 256}}"#;
    assert_eq!(geometry_of(text), (Resize::Shortest(256), Filter::Bilinear, Some((224, 224))));
    let text = r#"{"crop_size": {"height": 256, "width": 256}, "do_center_crop": true, "do_flip_channel_order": true,
        "do_resize": true, "feature_extractor_type": "MobileViTFeatureExtractor", "resample": 2,
        "size": {"shortest_edge": 288}}"#;
    let read = parse(text).unwrap();
    assert!(read.bgr);
    assert_close(white(text), [1.0; 3]);
}

#[test]
fn what_would_be_a_guess_is_an_error() {
    for (text, expected) in [
        (r#"{"size": 224}"#, "image_processor_type"),
        (r#"{"image_processor_type": "LayoutLMv3ImageProcessor"}"#, "LayoutLMv3ImageProcessor"),
        (r#"{"image_processor_type": "ViTImageProcessor", "do_resize": false}"#, "do_resize"),
        (r#"{"image_processor_type": "ViTImageProcessor", "resample": 9}"#, "resample 9"),
        (r#"{"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 224}}"#, "not cropped"),
        (r#"{"image_processor_type": "CLIPImageProcessor", "size": 200}"#, "crop_size 224×224"),
        (r#"{"image_processor_type": "ViTImageProcessor", "size": 100000}"#, "2048"),
        (r#"{"image_processor_type": "ViTImageProcessor", "image_std": [0, 1, 1]}"#, "image_std"),
        (r#"{"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": true}"#, "rescale_offset"),
        (r#"{"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 3}}"#, "not a processor"),
        ("[]", "not a processor"),
    ] {
        let error = parse(text).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
