//! Bad input is answered with a 4xx problem that names the mistake and the limit. Other requests are unaffected.

use reqwest::multipart::{Form, Part};
use reqwest::{Body, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::caudal::{Caudal, Folder, tree_memory};
use crate::test_images::{jpeg, png, scene};

/// Checks that `response` is a problem with this status and that its text contains all of `words`.
async fn expect_problem(what: &str, response: Response, status: u16, words: &[&str]) {
    let actual = response.status();
    let kind = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let text = response.text().await.unwrap();
    assert_eq!(actual, StatusCode::from_u16(status).unwrap(), "{what}: {text}");
    assert_eq!(kind.as_deref(), Some("application/problem+json"), "{what}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["status"], status, "{what}");
    assert!(problem["code"].is_string(), "{what}: {text}");
    for word in words {
        assert!(text.contains(word), "{what}: {word:?} is not in {text}");
    }
}

/// A PNG whose header declares a size that its data does not have.
fn png_declaring(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(&scene(0, 8, 8));
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// CRC-32 as in PNG (ISO 3309), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// A valid one-bit PNG of `side` × `side` white pixels: a decompression bomb.
fn one_bit_png(side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let row = vec![0xff; side.div_ceil(8) as usize];
    encoder.write_header().unwrap().write_image_data(&row.repeat(side as usize)).unwrap();
    bytes
}

#[tokio::test]
async fn a_bad_file_is_refused_with_the_reason_and_concurrent_requests_succeed() {
    let caudal = Caudal::petalert().await;
    let good = jpeg(&scene(1, 640, 480), 85);
    let truncated = good[..good.len() / 2].to_vec();
    let html = b"<!DOCTYPE html><html><body>not a photo</body></html>".to_vec();
    let cases = [
        ("empty", Vec::new(), 422, &["empty"][..]),
        ("truncated", truncated, 422, &["JPEG"]),
        ("html", html, 415, &["HTML"]),
        ("declares 65536", png_declaring(65_536, 65_536), 413, &["65536", "16384"]),
        ("decompression bomb", one_bit_png(16_000), 413, &["256", "50"]),
    ];
    for path in ["/embeddings/generate", "/embeddings/index/r1", "/embeddings/search_image"] {
        for (what, bytes, status, words) in &cases {
            let concurrent = caudal.post_file("/embeddings/generate", good.clone());
            let bad = caudal.post_file(path, bytes.clone());
            let (concurrent, bad) = futures_util::future::join(concurrent, bad).await;
            expect_problem(what, bad, *status, words).await;
            assert_eq!(concurrent.status(), 200, "the request beside {what}");
        }
    }
}

#[tokio::test]
async fn a_decompression_bomb_uses_no_memory() {
    let caudal = Caudal::petalert().await;
    let bomb = one_bit_png(16_000);
    // The first request allocates what is allocated on first use.
    caudal.post_file("/embeddings/generate", jpeg(&scene(1, 640, 480), 85)).await;
    let before = tree_memory(caudal.pid());
    for _ in 0..10 {
        caudal.post_file("/embeddings/generate", bomb.clone()).await;
        caudal.post_file("/embeddings/generate", png_declaring(65_536, 65_536)).await;
    }
    let grown = tree_memory(caudal.pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {} MiB", grown >> 20);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let caudal = Caudal::petalert().await;
    caudal.post_file("/embeddings/generate", jpeg(&scene(1, 640, 480), 85)).await;
    let before = tree_memory(caudal.pid());

    // With Content-Length: refused by its value; no byte of the body is sent.
    let address = caudal.base.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /embeddings/generate HTTP/1.1\r\nhost: {address}\r\ncontent-length: 104857600\r\n\
         content-type: multipart/form-data; boundary=x\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("20 MiB"), "{answer}");

    // Without Content-Length: refused when the limit is crossed. The client may see the answer or a closed connection.
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0u8; 64 << 10]));
    let part = Part::stream(Body::wrap_stream(endless)).file_name("photo");
    let request = caudal.client.post(caudal.url("/embeddings/generate")).multipart(Form::new().part("file", part));
    if let Ok(response) = request.send().await {
        expect_problem("endless", response, 413, &["20 MiB"]).await;
    }
    let grown = tree_memory(caudal.pid()).saturating_sub(before);
    assert!(grown < 96 << 20, "grew by {} MiB, including the broker", grown >> 20);
    assert_eq!(caudal.get("/health").await.status(), 200);
}

#[tokio::test]
async fn a_malformed_form_is_refused_and_the_problem_names_the_mistake() {
    let caudal = Caudal::petalert().await;
    let url = caudal.url("/embeddings/generate");
    let form = Form::new().text("picture", "x");
    let response = caudal.client.post(&url).multipart(form).send().await.unwrap();
    expect_problem("missing part", response, 400, &["file"]).await;

    let request = caudal.client.post(&url).header("content-type", "text/plain").body("hello");
    expect_problem("no form", request.send().await.unwrap(), 415, &["multipart/form-data"]).await;

    let request = caudal.client.post(&url).header("content-encoding", "gzip").body("hello");
    expect_problem("compressed", request.send().await.unwrap(), 415, &["Content-Encoding"]).await;

    let response = caudal.post_file("/embeddings/search_image?limit=0", jpeg(&scene(1, 64, 64), 85)).await;
    expect_problem("limit 0", response, 400, &["limit", "1", "100"]).await;

    let response = caudal.get("/embeddings/generate").await;
    expect_problem("wrong method", response, 405, &[]).await;
    expect_problem("unknown path", caudal.get("/nothing/here").await, 404, &[]).await;
    expect_problem("unknown request", caudal.get("/v1/requests/unknown").await, 404, &[]).await;
}

#[tokio::test]
async fn ids_with_subject_wildcards_or_path_separators_are_refused() {
    let caudal = Caudal::petalert().await;
    let photo = jpeg(&scene(1, 64, 64), 85);
    for id in ["a.b", "*", "%3E", "a%2Fb", "a%0Ab", "..", "%00", "a%20b", &"x".repeat(65)] {
        let response = caudal.post_file(&format!("/embeddings/index/{id}"), photo.clone()).await;
        // The client resolves `..` before it sends the request, as browsers do.
        let status = if id == ".." { 404 } else { 400 };
        if id == ".." {
            assert!(response.status().is_client_error());
        } else {
            expect_problem(id, response, status, &["report_id"]).await;
        }
    }
}

#[tokio::test]
async fn a_model_of_another_dimension_is_refused_by_the_collection() {
    let caudal = Caudal::petalert().await;
    let photo = jpeg(&scene(1, 320, 240), 85);
    assert_eq!(caudal.post_file("/embeddings/index/r1", photo.clone()).await.status(), 200);
    let folder: Folder = caudal.kill().await;

    let model = folder.path().join("other-model");
    crate::onnx_model::write_grid_model(&model);
    let source = format!("model.photo.source={}", model.display());
    let args = ["config/petalert.toml", "--set", &source, "--set", "limits.enabled=false"];
    let caudal = Caudal::serve(folder, &args).await;
    for path in ["/embeddings/index/r2", "/embeddings/search_image"] {
        let response = caudal.post_file(path, photo.clone()).await;
        expect_problem(path, response, 409, &["reports"]).await;
    }
    assert_eq!(caudal.post_file("/embeddings/generate", photo).await.status(), 200, "the model itself is fine");
}
