//! Several answers of one request: JSON is a list, files are a ZIP archive.

use std::io::{Cursor, Read};

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::caudal::{Caudal, Folder};
use crate::test_images::{jpeg, scene};

const CONFIG: &str = r#"
[model.photo]
source = "builtin:descriptor"

[[route]]
path = "/echo"
flow = "echo"
body = { parts = ["file"], max_bytes = "4 MiB" }

[[flow.echo.stage]]
use  = "split"
part = "file"

[[flow.echo.stage]]
use = "respond"

[[route]]
path = "/embed"
flow = "embed"
body = { parts = ["file"], max_bytes = "4 MiB" }

[[flow.embed.stage]]
use  = "split"
part = "file"

[[flow.embed.stage]]
use = "decode"

[[flow.embed.stage]]
use   = "embed"
model = "photo"

[[flow.embed.stage]]
use = "respond"
"#;

async fn send(caudal: &Caudal, path: &str, files: &[Vec<u8>]) -> reqwest::Response {
    let part = |bytes: &Vec<u8>| Part::bytes(bytes.clone()).file_name("a.jpg").mime_str("image/jpeg").unwrap();
    let form = files.iter().fold(Form::new(), |form, bytes| form.part("file", part(bytes)));
    let response = caudal.client.post(caudal.url(path)).multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

#[tokio::test]
async fn several_files_are_an_archive_and_several_texts_a_list() {
    let folder = Folder::new();
    let file = folder.path().join("split.toml");
    std::fs::write(&file, CONFIG).unwrap();
    let file = file.display().to_string();
    let caudal = Caudal::serve(folder, &[&file]).await;

    // Inline, and too long for that.
    let photos = [jpeg(&scene(1, 64, 48), 90), jpeg(&scene(2, 3000, 2000), 95), vec![7; 300 << 10]];
    let answer = send(&caudal, "/echo", &photos).await;
    assert_eq!(answer.headers()["content-type"], "application/zip");
    let mut archive = zip::ZipArchive::new(Cursor::new(answer.bytes().await.unwrap())).unwrap();
    assert_eq!(archive.len(), photos.len());
    for (number, photo) in (1..).zip(&photos) {
        let mut bytes = Vec::new();
        archive.by_name(&format!("{number}.jpg")).unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == *photo, "{number}");
    }

    let answer: Value = send(&caudal, "/embed", &photos[..2]).await.json().await.unwrap();
    let dims: Vec<&Value> = answer.as_array().unwrap().iter().map(|one| &one["dim"]).collect();
    assert!(dims.len() == 2 && dims.iter().all(|dim| **dim != json!(null)), "{answer:.300}");
}
