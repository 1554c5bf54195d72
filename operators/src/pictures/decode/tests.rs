//! Decodes valid, unusual and hostile image files.

use image::{ExtendedColorType, RgbImage};
use jpeg_encoder::{ColorType, SamplingFactor};
use pipeline::testing::run;
use pipeline::{Content, DeclaredNames, Digest, Image, OperatorSpec, Params, Payload, Rejection, Token};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::operator::catch_panic;
use super::rgb::{self, Rgb};
use super::test_images::*;
use super::{DecodeSpec, KIND, Limits, decode, probe};
use crate::test_doubles::{MeanModel, services_with};

fn limits() -> Limits {
    spec().limits()
}

fn spec() -> DecodeSpec {
    serde_json::from_value(json!({})).unwrap()
}

fn decoded(bytes: &[u8]) -> Image {
    decode(bytes, &limits(), None).unwrap()
}

fn refused(bytes: &[u8]) -> Rejection {
    decode(bytes, &limits(), None).unwrap_err()
}

/// Mean difference of two images of the same size, in levels of 256.
fn difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

/// Cosine similarity of two images as a model sees them: centred at their mean.
fn cosine(a: &[u8], b: &[u8]) -> f64 {
    let centred = |values: &[u8]| {
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        values.iter().map(|&v| f64::from(v) - mean).collect::<Vec<_>>()
    };
    let (a, b) = (centred(a), centred(b));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

fn noisy(picture: &RgbImage, amplitude: i32) -> RgbImage {
    let mut random = StdRng::seed_from_u64(7);
    let mut noisy = picture.clone();
    noisy
        .iter_mut()
        .for_each(|v| *v = (i32::from(*v) + random.random_range(-amplitude..=amplitude)).clamp(0, 255) as u8);
    noisy
}

/// Every subsampling, and whether colours have a quarter of the resolution.
const SAMPLINGS: [(SamplingFactor, bool); 8] = [
    (SamplingFactor::F_1_1, false),
    (SamplingFactor::F_2_1, false),
    (SamplingFactor::F_1_2, false),
    (SamplingFactor::F_2_2, false),
    (SamplingFactor::F_4_1, true),
    (SamplingFactor::F_4_2, true),
    (SamplingFactor::F_1_4, true),
    (SamplingFactor::F_2_4, true),
];

/// One file of every kind that decodes.
fn every_kind() -> Vec<(&'static str, Vec<u8>)> {
    let picture = noisy(&scene(203, 151), 6);
    vec![
        ("jpeg", jpeg(&picture, PLAIN)),
        ("jpeg 4:4:4", jpeg(&picture, Writing { sampling: SamplingFactor::F_1_1, ..PLAIN })),
        ("jpeg restarts", jpeg(&picture, Writing { restart: 5, ..PLAIN })),
        ("jpeg progressive", jpeg(&picture, Writing { progressive: true, ..PLAIN })),
        ("png", rgb_png(&picture)),
        ("webp", webp(picture.as_raw(), 203, 151, ExtendedColorType::Rgb8)),
        ("gif", gif(&picture, 1)),
    ]
}

#[test]
fn every_kind_shows_the_same_picture() {
    let picture = noisy(&scene(203, 151), 6);
    for (kind, bytes) in every_kind() {
        let image = decoded(&bytes);
        assert_eq!((image.width, image.height), (203, 151), "{kind}");
        let allowed = if kind == "gif" { 8.0 } else { 4.0 };
        let found = difference(&image.pixels, picture.as_raw());
        assert!(found < allowed, "{kind}: {found}");
        assert_eq!(image.sha256, Digest(Sha256::digest(&bytes).into()), "{kind}");
    }
    assert_eq!(decoded(&LOSSY_WEBP).pixels.len(), 3);
}

#[test]
fn all_eight_orientations_give_the_same_picture() {
    let picture = scene(160, 120);
    for orientation in 1..=8 {
        let turned = stored(&picture, orientation);
        let files = [
            with_exif(&jpeg(&turned, Writing { sampling: SamplingFactor::F_1_1, ..PLAIN }), &tiff(orientation)),
            behind_header(&rgb_png(&turned), &chunk(b"eXIf", &tiff(orientation))),
            webp_with_exif(&turned, &tiff(orientation)),
        ];
        for bytes in files {
            assert_eq!(probe(&bytes).unwrap().orientation, orientation);
            let full = decoded(&bytes);
            assert_eq!((full.width, full.height), (160, 120), "{orientation}");
            assert!(difference(&full.pixels, picture.as_raw()) < 1.5, "{orientation}");
            let small = decode(&bytes, &limits(), Some((40, 30))).unwrap();
            assert_eq!((small.width, small.height), (40, 30), "{orientation}");
            let expected = rgb::shrink(Rgb::new(160, 120, picture.as_raw().clone()).unwrap(), 4).unwrap();
            assert!(difference(&small.pixels, &expected.pixels) < 2.0, "{orientation}");
        }
    }
}

#[test]
fn full_and_smaller_decodes_show_what_was_drawn_in_every_subsampling() {
    // Where 8 does not divide the sides, the two cut the last block differently: it is most of a tiny image.
    for (width, height, allowed) in [(208, 152, 1.5), (203, 151, 2.5), (64, 64, 7.0), (17, 33, 40.0), (9, 8, 40.0)] {
        let picture = scene(width, height);
        for (sampling, coarse) in SAMPLINGS {
            // A quarter of the colour resolution shows at the edges of a small image.
            let allowed = if coarse { allowed * 3.0 } else { allowed };
            for (progressive, restart) in [(false, 0), (false, 3), (true, 0)] {
                let bytes = jpeg(&picture, Writing { sampling, progressive, restart });
                let full = decoded(&bytes);
                let found = difference(&full.pixels, picture.as_raw());
                assert!(found < allowed, "{width} × {height} {sampling:?} {progressive} {restart}: {found}");
                for divisor in [2, 4, 8] {
                    let min = (width.div_ceil(divisor), height.div_ceil(divisor));
                    let small = decode(&bytes, &limits(), Some(min)).unwrap();
                    assert_eq!((small.width, small.height), min);
                    let drawn = Rgb::new(width, height, picture.as_raw().clone()).unwrap();
                    let found = difference(&small.pixels, &rgb::shrink(drawn, divisor).unwrap().pixels);
                    let context = format!("{width} × {height} {sampling:?} {progressive} {restart} 1/{divisor}");
                    assert!(found < allowed, "{context}: {found}");
                }
            }
        }
    }
}

#[test]
fn a_model_sees_the_same_in_a_smaller_decode() {
    let picture = noisy(&scene(1800, 1350), 12);
    let to_model = |image: Image| {
        let sheet = RgbImage::from_raw(image.width, image.height, image.pixels).unwrap();
        image::imageops::resize(&sheet, 224, 224, image::imageops::FilterType::CatmullRom).into_raw()
    };
    for progressive in [false, true] {
        let bytes = jpeg(&picture, Writing { progressive, ..PLAIN });
        let full = to_model(decoded(&bytes));
        let small = decode(&bytes, &limits(), Some((448, 448))).unwrap();
        assert_eq!((small.width, small.height), (900, 675));
        let found = cosine(&full, &to_model(small));
        assert!(found > 0.9995, "{found}");
    }
}

#[test]
fn the_smaller_decode_is_never_below_what_was_asked() {
    let big = rgb_png(&scene(1000, 460));
    for (min, expected) in [((448, 448), (1000, 460)), ((448, 230), (500, 230)), ((10, 10), (125, 58))] {
        let image = decode(&big, &limits(), Some(min)).unwrap();
        assert_eq!((image.width, image.height), expected);
    }
}

#[test]
fn a_truncated_file_is_an_error_and_not_a_grey_image() {
    for (kind, bytes) in every_kind() {
        for percent in 0..100 {
            let cut = &bytes[..bytes.len() * percent / 100];
            for min_size in [None, Some((50, 37))] {
                let why = decode(cut, &limits(), min_size).expect_err(kind);
                assert!([415, 422].contains(&why.status), "{kind} {percent} %: {why}");
            }
        }
        let why = refused(&bytes[..bytes.len() - 13]);
        assert_eq!(why.status, 422, "{kind}: {why}");
    }
}

#[test]
fn rows_missing_before_the_end_marker_are_an_error() {
    for restart in [0, 5] {
        let bytes = jpeg(&noisy(&scene(203, 151), 6), Writing { restart, ..PLAIN });
        let shortened = [&bytes[..bytes.len() / 2], &[0xff, 0xd9]].concat();
        assert_eq!(decode(&shortened, &limits(), Some((50, 37))).unwrap_err().status, 422);
    }
}

#[test]
fn flipped_bits_never_panic_or_hang() {
    for (kind, bytes) in every_kind() {
        let mut random = StdRng::seed_from_u64(1);
        for seed in 0..1000 {
            let mut flipped = bytes.clone();
            for _ in 0..random.random_range(1..=8) {
                let place = random.random_range(0..flipped.len());
                flipped[place] ^= 1 << random.random_range(0..8);
            }
            let min_size = if seed % 2 == 0 { None } else { Some((50, 37)) };
            let begun = Instant::now();
            if let Err(why) = decode(&flipped, &limits(), min_size) {
                assert!([413, 415, 422].contains(&why.status), "{kind} {seed}: {why}");
            }
            assert!(begun.elapsed() < Duration::from_secs(2), "{kind} {seed}");
        }
    }
}

#[test]
fn bombs_are_refused_by_their_header_at_once() {
    let row = 16_000 / 8;
    let honest = png((16_000, 16_000), (png::ColorType::Grayscale, png::BitDepth::One), &vec![0; row * 16_000], None);
    let mut jpeg_lie = jpeg(&scene(16, 16), PLAIN);
    let frame = jpeg_lie.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg_lie[frame + 5..frame + 9].copy_from_slice(&[0x40, 0x00, 0x40, 0x00]);
    let gif_lie = [b"GIF89a".as_slice(), &60_000_u16.to_le_bytes(), &900_u16.to_le_bytes(), &[0; 3]].concat();
    let webp_lie = extended_webp(0, (16_384, 16_384), &lossless_chunk(&scene(4, 4)));
    for (bytes, code) in [
        (honest, "image_too_many_pixels"),
        (png_header(65_536, 65_536), "image_too_wide"),
        (png_header(16_384, 16_384), "image_too_many_pixels"),
        (jpeg_lie, "image_too_many_pixels"),
        (gif_lie, "image_too_wide"),
        (webp_lie, "image_too_many_pixels"),
    ] {
        let begun = Instant::now();
        let why = refused(&bytes);
        assert!(begun.elapsed() < Duration::from_millis(100), "{code}");
        assert_eq!((why.status, &*why.code), (413, code));
    }
    assert!(refused(&png_header(65_536, 65_536)).detail.contains("65536 × 65536 pixels; the limit is 16384"));
    assert!(refused(&png_header(16_384, 16_384)).detail.contains("268.4 megapixels; the limit is 50"));
}

#[test]
fn images_within_the_limits_may_still_take_too_much_memory() {
    let deep = png_header(16_384, 3_000);
    // The same header with 16 bits of RGBA. Its pixels are missing, but the decoder does not get that far.
    let fields = [&deep[16..24], &[16, 6, 0, 0, 0]].concat();
    let idat = chunk(b"IDAT", &[0x78, 0x9c]);
    let deep = [&deep[..8], &chunk(b"IHDR", &fields), &idat, &chunk(b"IEND", &[])].concat();
    assert_eq!(refused(&deep).status, 422);
    let mut large = jpeg(&scene(16, 16), Writing { sampling: SamplingFactor::F_1_1, progressive: true, restart: 0 });
    let frame = large.windows(2).position(|pair| pair == [0xff, 0xc2]).unwrap();
    large[frame + 5..frame + 9].copy_from_slice(&[0x0b, 0xb8, 0x40, 0x00]);
    let why = refused(&large);
    assert_eq!((why.status, &*why.code), (413, "image_too_much_memory"));
}

#[test]
fn a_frame_larger_than_its_canvas_is_corrupt() {
    let inner = lossless_chunk(&scene(64, 64));
    let why = refused(&extended_webp(0, (8, 8), &inner));
    assert_eq!((why.status, &*why.code), (422, "image_corrupt"));
    let mut animated = animated_webp(&scene(8, 8), 1);
    let frame = animated.windows(4).position(|kind| kind == b"VP8L").unwrap();
    animated[frame + 9..frame + 13].copy_from_slice(&[0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(refused(&animated).status, 422);
}

#[test]
fn a_file_of_another_type_is_named() {
    let ftyp = |brand: &[u8; 4]| [b"\0\0\0\x18ftyp", &brand[..], &[0; 12]].concat();
    let cases: [(Vec<u8>, &str); 12] = [
        (b"<!DOCTYPE html><html><body>photo.jpg</body></html>".to_vec(), "this is HTML"),
        (b"\xef\xbb\xbf  <html>".to_vec(), "this is HTML"),
        (b"<?xml version=\"1.0\"?><svg xmlns=\"x\"/>".to_vec(), "this is SVG"),
        (b"<?php system($_GET[0]); ?>".to_vec(), "this is PHP"),
        (b"%PDF-1.7".to_vec(), "this is PDF"),
        (b"II*\0\x08\0\0\0".to_vec(), "this is TIFF"),
        (b"BM\x36\0\0\0".to_vec(), "this is BMP"),
        (ftyp(b"heic"), "this is HEIC"),
        (ftyp(b"avif"), "this is AVIF"),
        (ftyp(b"isom"), "this is a video"),
        (b"{\"photo\": 1}".to_vec(), "this is JSON"),
        (vec![0x13; 64], "not an image; expected JPEG, PNG, WebP or GIF"),
    ];
    for (bytes, text) in cases {
        let why = refused(&bytes);
        assert_eq!((why.status, &*why.code), (415, "image_type"));
        assert!(why.detail.starts_with(text), "{}", why.detail);
    }
    assert!(refused(&ftyp(b"heic")).detail.contains("iPhone"));
    assert_eq!(refused(b"").status, 422);
}

#[test]
fn only_accepted_formats_are_decoded() {
    let spec: DecodeSpec = serde_json::from_value(json!({"formats": ["jpeg", "png"]})).unwrap();
    let why = decode(&gif(&scene(4, 4), 1), &spec.limits(), None).unwrap_err();
    assert_eq!(why.status, 415);
    assert!(why.detail.contains("GIF") && why.detail.contains("JPEG or PNG"));
    assert!(serde_json::from_value::<DecodeSpec>(json!({"formats": ["tiff"]})).is_err());
}

#[test]
fn a_file_too_long_is_rejected_before_it_is_read() {
    let spec: DecodeSpec = serde_json::from_value(json!({"max_bytes": "1 KiB"})).unwrap();
    let why = decode(&vec![b'<'; 1025], &spec.limits(), None).unwrap_err();
    assert_eq!((why.status, why.detail.as_str()), (413, "the image has 1025 bytes; the limit is 1 KiB"));
}

#[test]
fn polyglot_files_are_decoded_as_their_image() {
    let picture = jpeg(&scene(32, 32), PLAIN);
    let with_php = with_segment(&picture, 0xfe, b"<?php system($_GET[0]); ?>");
    let with_tail = [picture.as_slice(), b"<script>alert(1)</script>PK\x03\x04"].concat();
    assert_eq!(decoded(&with_php).pixels, decoded(&picture).pixels);
    assert_eq!(decoded(&with_tail).pixels, decoded(&picture).pixels);
    let script = [b"GIF89a".as_slice(), b"/*".as_slice(), &[4, 0, 0, 0, 0], b"*/=1;alert(1)//"].concat();
    assert_eq!(refused(&script).status, 422);
}

#[test]
fn the_smallest_picture_decodes_in_every_format() {
    let dot = scene(1, 1);
    let files = [jpeg(&dot, PLAIN), rgb_png(&dot), webp(dot.as_raw(), 1, 1, ExtendedColorType::Rgb8), gif(&dot, 1)];
    for bytes in files {
        for min_size in [None, Some((1, 1)), Some((448, 448))] {
            let image = decode(&bytes, &limits(), min_size).unwrap();
            assert_eq!((image.width, image.height, image.pixels.len()), (1, 1, 3));
        }
    }
}

#[test]
fn grey_and_four_colour_jpegs_become_rgb() {
    let grey: Vec<u8> = (0..64 * 48).map(|i| (i % 64 * 4) as u8).collect();
    let bytes = jpeg_of(&grey, 64, 48, ColorType::Luma, PLAIN);
    for (image, divisor) in [(decoded(&bytes), 1), (decode(&bytes, &limits(), Some((32, 24))).unwrap(), 2)] {
        assert_eq!((image.width, image.height), (64 / divisor, 48 / divisor));
        assert!(image.pixels.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
        assert!(image.pixels[0] < 16 && image.pixels[image.pixels.len() - 1] > 235);
    }
    // Cyan ink alone: no red, all green and blue. In some of these files only black is stored at full resolution.
    for colours in [ColorType::Cmyk, ColorType::CmykAsYcck] {
        for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_2_2] {
            let bytes = jpeg_of(&[255, 0, 0, 0].repeat(32 * 32), 32, 32, colours, Writing { sampling, ..PLAIN });
            for min_size in [None, Some((16, 16))] {
                let image = decode(&bytes, &limits(), min_size).unwrap();
                assert_eq!(image.width, min_size.map_or(32, |size| size.0));
                let found = difference(&image.pixels, &[0, 255, 255].repeat(image.pixels.len() / 3));
                assert!(found < 2.0, "{colours:?} {sampling:?} {min_size:?}: {found}");
            }
        }
    }
}

#[test]
fn every_png_colour_type_becomes_rgb_on_white() {
    use png::{BitDepth, ColorType};
    let one = |colours, depth, data: &[u8], palette| decoded(&png((1, 1), (colours, depth), data, palette)).pixels;
    assert_eq!(one(ColorType::Rgb, BitDepth::Sixteen, &[0x12, 0xff, 0x80, 0, 0xff, 0xff], None), [0x12, 0x80, 0xff]);
    assert_eq!(one(ColorType::Grayscale, BitDepth::One, &[0x80], None), [255; 3]);
    assert_eq!(one(ColorType::GrayscaleAlpha, BitDepth::Eight, &[0, 0], None), [255; 3]);
    assert_eq!(one(ColorType::Rgba, BitDepth::Eight, &[0, 100, 255, 255], None), [0, 100, 255]);
    assert_eq!(one(ColorType::Rgba, BitDepth::Eight, &[0, 0, 255, 128], None), [127, 127, 255]);
    let palette = Some((vec![10, 20, 30, 200, 0, 0], vec![255, 0]));
    let indexed = png((2, 1), (ColorType::Indexed, BitDepth::Eight), &[0, 1], palette);
    assert_eq!(decoded(&indexed).pixels, [10, 20, 30, 255, 255, 255]);
    let alpha = webp(&[9, 9, 9, 0], 1, 1, ExtendedColorType::Rgba8);
    assert_eq!(decoded(&alpha).pixels, [255; 3]);
}

#[test]
fn only_the_first_frame_of_an_animation_is_decoded() {
    let picture = scene(8, 8);
    let mut frames = Vec::new();
    for sequence in 0..20_000_u32 {
        let control = [&(2 * sequence + 1).to_be_bytes()[..], &[0; 3], &[1], &[0; 3], &[1], &[0; 14]].concat();
        frames.extend(chunk(b"fcTL", &control));
        frames.extend(chunk(b"fdAT", &[&(2 * sequence + 2).to_be_bytes()[..], &[0; 8]].concat()));
    }
    let still = rgb_png(&picture);
    let apng = behind_header(&before_end(&still, &frames), &chunk(b"acTL", &[0, 0, 0x4e, 0x21, 0, 0, 0, 0]));
    for (kind, bytes) in [("gif", gif(&picture, 10_000)), ("webp", animated_webp(&picture, 10_000)), ("png", apng)] {
        let begun = Instant::now();
        let image = decoded(&bytes);
        assert!(begun.elapsed() < Duration::from_millis(100), "{kind}");
        assert_eq!((image.width, image.height), (8, 8), "{kind}");
        assert!(difference(&image.pixels, picture.as_raw()) < 8.0, "{kind}");
    }
}

#[test]
fn metadata_is_bounded_and_never_makes_a_picture_bad() {
    let picture = jpeg(&scene(32, 32), PLAIN);
    let mut looped = tiff(6);
    let next = looped.len() - 4;
    looped[next..].copy_from_slice(&8_u32.to_be_bytes());
    assert_eq!(decoded(&with_exif(&picture, &looped)).width, 32);
    for broken in [b"MM".to_vec(), vec![0xff; 60_000], tiff(0), tiff(9), tiff(255)] {
        let bytes = with_exif(&picture, &broken);
        assert_eq!(probe(&bytes).unwrap().orientation, 1);
        assert_eq!(decoded(&bytes).width, 32);
    }
    // Compressed text and profiles are skipped, and of a long EXIF block the beginning is still read.
    let bomb = [b"note\0\x01\0\0\0".as_slice(), &[0x78, 0x9c], &[0; 4096]].concat();
    let long = [tiff(8), vec![0; 2 << 20]].concat();
    let chunks = [chunk(b"iTXt", &bomb), chunk(b"iCCP", b"x\0\0\x78\x9c"), chunk(b"eXIf", &long)].concat();
    let bytes = behind_header(&rgb_png(&scene(8, 6)), &chunks);
    assert_eq!((probe(&bytes).unwrap().orientation, decoded(&bytes).width), (8, 6));
}

#[test]
fn a_progressive_jpeg_of_many_scans_is_refused() {
    let bytes = jpeg(&scene(64, 64), Writing { progressive: true, ..PLAIN });
    let last = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    let end = bytes.len() - 2;
    let many = [&bytes[..end], &bytes[last..end].repeat(100), &bytes[end..]].concat();
    let why = refused(&many);
    assert_eq!(why.status, 422);
    assert!(why.detail.contains("100 scans"), "{}", why.detail);
}

#[test]
fn unusual_jpegs_are_named() {
    let bytes = jpeg(&scene(16, 16), PLAIN);
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let with = |offset: usize, value: u8| {
        let mut changed = bytes.clone();
        changed[frame + offset] = value;
        refused(&changed)
    };
    assert!(with(1, 0xc9).detail.contains("arithmetic"));
    assert!(with(1, 0xc3).detail.contains("lossless"));
    assert!(with(4, 12).detail.contains("12 bits"));
    assert_eq!(with(1, 0xc9).status, 415);
    assert_eq!(with(6, 0).status, 422);
}

#[tokio::test]
async fn a_bad_picture_is_rejected_and_its_neighbours_are_decoded() {
    let good = jpeg(&scene(1000, 900), PLAIN);
    let bytes = |bytes: &[u8]| Payload::Bytes(Content::inline("text/plain", bytes.to_vec()));
    let services = services_with(Arc::new(MeanModel::new()));
    let spec: DecodeSpec = serde_json::from_value(json!({"model": "photo"})).unwrap();
    let mut operator = spec.build(&services).unwrap();
    let batch = vec![bytes(&good), bytes(&good[..5000]), bytes(b"<html>"), bytes(&good)];
    let ran = run(operator.as_mut(), Params::new(), batch).await;
    assert_eq!(ran.emitted.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(ran.rejected.iter().map(|(place, why)| (*place, why.status)).collect::<Vec<_>>(), [(1, 422), (2, 415)]);
    let Payload::Image(image) = &ran.emitted[0].1 else { panic!("{:?}", ran.emitted) };
    // The test double resizes to 224: half the size is the smallest that leaves 448.
    assert_eq!((image.width, image.height), (500, 450));
}

#[test]
fn a_decoder_that_panics_rejects_only_its_own_image() {
    let why = catch_panic(|| panic!("index out of bounds")).unwrap_err();
    assert_eq!((why.status, &*why.code), (422, "image_corrupt"));
    assert!(!why.detail.contains("index"));
}

#[test]
fn the_config_is_checked() {
    let spec: DecodeSpec = serde_json::from_value(json!({"model": "phot", "formats": []})).unwrap();
    let keys: Vec<_> = (&spec as &dyn OperatorSpec)
        .key_problems(&DeclaredNames::default())
        .iter()
        .map(|problem| problem.key)
        .collect();
    assert_eq!(keys, ["model", "formats"]);
    for wrong in [json!({"max_side": 0}), json!({"max_megapixels": 0}), json!({"megapixels": 5})] {
        assert!(serde_json::from_value::<DecodeSpec>(wrong).is_err());
    }
    assert!(Token::new(KIND.name).is_ok());
}
