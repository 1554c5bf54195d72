//! PetAlert's photo API: index, search for look-alikes, embeddings, asynchronous and cancelled requests.

use serde_json::Value;

use crate::caudal::{Caudal, TIMEOUT};
use crate::test_images::{SCENES, copy, jpeg, png, scene};

#[tokio::test]
async fn a_copy_finds_its_original_first() {
    let caudal = Caudal::petalert().await;
    for number in 0..SCENES {
        let image = scene(number, 800, 600);
        let bytes = if number % 2 == 0 { jpeg(&image, 90) } else { png(&image) };
        let response = caudal.post_file(&format!("/embeddings/index/report-{number}"), bytes).await;
        assert_eq!(response.status(), 200);
        assert!(response.headers().contains_key("caudal-request"));
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer, serde_json::json!({ "report_id": format!("report-{number}"), "indexed": true }));
    }
    for number in 0..SCENES {
        let photo = copy(&scene(number, 800, 600));
        let response = caudal.post_file("/embeddings/search_image?limit=3", photo).await;
        assert_eq!(response.status(), 200);
        let answer: Value = response.json().await.unwrap();
        let matches = answer["matches"].as_array().unwrap();
        assert_eq!(matches.len(), 3);
        assert_eq!(matches[0]["report_id"], format!("report-{number}"), "{answer}");
        assert!(matches[0]["score"].as_f64() > matches[1]["score"].as_f64());
    }
}

#[tokio::test]
async fn an_embedding_is_the_same_alone_and_in_a_batch() {
    let caudal = Caudal::petalert().await;
    let photo = |number| jpeg(&scene(number, 640, 480), 85);
    let alone: Value = caudal.post_file("/embeddings/generate", photo(1)).await.json().await.unwrap();
    let values = |answer: &Value| -> Vec<f64> {
        answer["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    };
    assert_eq!(values(&alone).len() as u64, alone["dim"].as_u64().unwrap());
    assert_eq!(alone["model"], "photo");
    let length: f64 = values(&alone).iter().map(|v| v * v).sum();
    assert!((length - 1.0).abs() < 1e-3, "squared length {length}, expected 1");

    let batch = (0..SCENES).map(|number| caudal.post_file("/embeddings/generate", photo(number)));
    let answers = futures_util::future::join_all(batch).await;
    let again: Value = answers.into_iter().nth(1).unwrap().json().await.unwrap();
    let cosine: f64 = values(&alone).iter().zip(values(&again)).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.9999, "{cosine}");
}

#[tokio::test]
async fn an_async_request_can_be_polled_and_streamed_later() {
    let caudal = Caudal::petalert().await;
    let id = caudal.post_later("/embeddings/generate", jpeg(&scene(2, 640, 480), 85)).await;
    let request = caudal.result(&id).await;
    assert_eq!(request["status"], "done");
    assert_eq!(request["flow"], "describe");
    assert!(request["result"]["embedding"].is_array());

    let stream = caudal.get(&format!("/v1/requests/{id}/events")).await.text().await.unwrap();
    let names: Vec<&str> = stream.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names.first(), Some(&"accepted"), "{stream}");
    assert_eq!(names.last(), Some(&"done"), "{stream}");
}

#[tokio::test]
async fn flow_counts_and_metrics_report_finished_events() {
    let caudal = Caudal::petalert().await;
    for number in 0..3 {
        caudal.post_file("/embeddings/generate", jpeg(&scene(number, 320, 240), 85)).await;
    }
    // The answer can reach the client before its event is acknowledged and counted.
    let counted = async {
        loop {
            let flows: Value = caudal.get("/v1/flows").await.json().await.unwrap();
            let describe = flows["flows"].as_array().unwrap().iter().find(|flow| flow["name"] == "describe").unwrap();
            if describe["done"] == 3 {
                assert_eq!(describe["stages"][1]["done"], 3, "{describe}");
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, counted).await.expect("three events are counted");
    let metrics = caudal.get("/metrics").await.text().await.unwrap();
    let line = "caudal_flow_events_total{flow=\"describe\",result=\"done\"} 3";
    assert!(metrics.contains(line), "{metrics}");
    assert_eq!(caudal.get("/health").await.status(), 200);
    assert_eq!(caudal.get("/ready").await.status(), 200);
}

#[tokio::test]
async fn a_cancelled_request_ends_at_once_and_its_photo_is_not_embedded() {
    let caudal = Caudal::petalert().await;
    let photo = jpeg(&scene(4, 2400, 1800), 90);
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(caudal.post_later("/embeddings/generate", photo.clone()).await);
    }
    let last = ids.pop().unwrap();
    let response = caudal.client.delete(caudal.url(&format!("/v1/requests/{last}"))).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(caudal.result(&last).await["status"], "cancelled");
    let again = caudal.client.delete(caudal.url(&format!("/v1/requests/{last}"))).send().await.unwrap();
    assert_eq!(again.status(), 409, "it has ended already");
    for id in &ids {
        assert_eq!(caudal.result(id).await["status"], "done");
    }
    let stream = caudal.get(&format!("/v1/requests/{last}/events")).await.text().await.unwrap();
    assert!(stream.contains("event: cancelled") && !stream.contains("event: done"), "{stream}");
}
