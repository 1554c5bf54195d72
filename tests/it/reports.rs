//! PetAlert's reports: a report is answered at once and its photos are indexed in the background.

use base64::Engine as _;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::caudal::Caudal;
use crate::test_images::{copy, jpeg, scene};

#[tokio::test]
async fn a_report_is_answered_at_once_and_its_photos_are_found_later() {
    let caudal = Caudal::petalert().await;
    let form = Form::new()
        .text("report", json!({ "id": "rex", "animal": "dog", "name": "Rex" }).to_string())
        .part("photo", Part::bytes(jpeg(&scene(1, 800, 600), 90)).file_name("a.jpg"))
        .part("photo", Part::bytes(jpeg(&scene(2, 800, 600), 90)).file_name("b.jpg"));
    let response = caudal.client.post(caudal.url("/reports")).multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let created: Value = response.json().await.unwrap();
    assert_eq!(created["report"]["name"], "Rex");

    let read: Value = caudal.get("/reports/rex").await.json().await.unwrap();
    assert_eq!(read["report"], created["report"]);
    assert_eq!(read["request"], created["request"]);

    let request = caudal.result(created["request"].as_str().unwrap()).await;
    assert_eq!(request["status"], "done", "{request}");
    for number in [1, 2] {
        let found = caudal.post_file("/embeddings/search_image", copy(&scene(number, 800, 600))).await;
        let found: Value = found.json().await.unwrap();
        assert_eq!(found["matches"].as_array().unwrap().len(), 1, "one report, however many photos: {found}");
        assert_eq!(found["matches"][0]["report_id"], "rex");
    }
}

/// Nobody waits for the photos of a report: that one failed must be found in the dead letters.
#[tokio::test]
async fn a_report_whose_photo_fails_leaves_a_dead_letter() {
    let caudal = Caudal::petalert().await;
    let form = Form::new()
        .text("report", json!({ "id": "rex", "animal": "dog" }).to_string())
        .part("photo", Part::bytes(jpeg(&scene(1, 800, 600), 90)).file_name("a.jpg"))
        .part("photo", Part::bytes(b"<html>no photo</html>".to_vec()).file_name("b.jpg"));
    let response = caudal.client.post(caudal.url("/reports")).multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let created: Value = response.json().await.unwrap();
    let request = caudal.result(created["request"].as_str().unwrap()).await;
    assert_eq!((&request["status"], &request["error"]["code"]), (&json!("failed"), &json!("image_type")), "{request}");

    let letters: Value = caudal.get("/v1/dead-letters?flow=report").await.json().await.unwrap();
    let letter = &letters["dead_letters"][0];
    assert_eq!(letter["request"], created["request"], "{letters}");
    assert_eq!((&letter["stage"], &letter["cause"]["code"]), (&json!("decode"), &json!("image_type")));
    // The other photo is indexed all the same.
    let found = caudal.post_file("/embeddings/search_image", copy(&scene(1, 800, 600))).await;
    let found: Value = found.json().await.unwrap();
    assert_eq!(found["matches"][0]["report_id"], "rex");
    // Who waits for the answer is told, and leaves no dead letter.
    let refused = caudal.post_file("/embeddings/generate", b"<html>no photo</html>".to_vec()).await;
    assert_eq!(refused.status(), 415);
    let letters: Value = caudal.get("/v1/dead-letters").await.json().await.unwrap();
    assert_eq!(letters["dead_letters"].as_array().unwrap().len(), 1, "{letters}");
}

#[tokio::test]
async fn a_report_may_come_as_json_with_data_uris() {
    let caudal = Caudal::petalert().await;
    let photo = base64::engine::general_purpose::STANDARD.encode(jpeg(&scene(3, 640, 480), 90));
    let body = json!({ "animal": "cat", "photos": [format!("data:image/jpeg;base64,{photo}")] });
    let response = caudal.client.post(caudal.url("/reports")).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let created: Value = response.json().await.unwrap();
    assert_eq!(created["report"]["animal"], "cat");
    let request = caudal.result(created["request"].as_str().unwrap()).await;
    assert_eq!(request["status"], "done", "{request}");
    let found = caudal.post_file("/embeddings/search_image", copy(&scene(3, 640, 480))).await;
    let found: Value = found.json().await.unwrap();
    let id = found["matches"][0]["report_id"].as_str().unwrap();
    let read: Value = caudal.get(&format!("/reports/{id}")).await.json().await.unwrap();
    assert_eq!(read["report"]["animal"], "cat");
}

#[tokio::test]
async fn an_unknown_report_is_a_404() {
    let caudal = Caudal::petalert().await;
    let response = caudal.get("/reports/nobody").await;
    assert_eq!(response.status(), 404);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
}
