//! The console page in a real browser: it draws the flows, finds look-alikes of a photo, asks for an API key.

use serde_json::Value;
use tempfile::TempDir;

use crate::browser::Browser;
use crate::caudal::Caudal;
use crate::tenants::{api_key, with_auth};
use crate::test_images::{copy, jpeg, scene};

#[tokio::test]
async fn an_uploaded_photo_finds_its_look_alike_on_the_page() {
    let caudal = Caudal::petalert().await;
    let folder = TempDir::new().unwrap();
    let mut paths = Vec::new();
    for number in 0..3 {
        let path = folder.path().join(format!("dog{number}.jpg"));
        std::fs::write(&path, jpeg(&scene(number, 640, 480), 90)).unwrap();
        paths.push(path.display().to_string());
    }
    let copied = folder.path().join("copy.jpg");
    std::fs::write(&copied, copy(&scene(1, 640, 480))).unwrap();

    let page = Browser::start().await;
    page.open(&caudal.url("/")).await;
    for flow in ["describe", "index-photo", "look-alikes", "report"] {
        page.find(&format!("[data-flow=\"{flow}\"] [data-stage=\"decode\"]")).await;
    }

    page.choose_files("#photo-input", &paths).await;
    for number in 0..3 {
        page.find(&format!("[data-report=\"dog{number}\"][data-state=\"done\"] [data-match]")).await;
    }
    page.choose_files("#photo-input", &[copied.display().to_string()]).await;
    page.find("[data-report=\"copy\"][data-state=\"done\"] [data-match]").await;
    let script =
        "return [...document.querySelectorAll('[data-report=\"copy\"] [data-match]')].map(e => e.dataset.match)";
    let matches = page.run(script).await;
    let first = matches.as_array().unwrap().iter().find(|id| *id != "copy").unwrap();
    assert_eq!(first, "dog1", "{matches}");

    // For manual review.
    let image = page.screenshot().await;
    std::fs::write(std::env::temp_dir().join("caudal-console.png"), image).unwrap();
}

#[tokio::test]
async fn a_wrong_file_shows_its_problem_and_the_page_loads_nothing_from_other_hosts() {
    let caudal = Caudal::petalert().await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("page.jpg");
    std::fs::write(&path, "<html><script>alert(1)</script></html>").unwrap();
    let page = Browser::start().await;
    page.open(&caudal.url("/")).await;
    page.choose_files("#photo-input", &[path.display().to_string()]).await;
    let problem = page.find("[data-report=\"page\"] .problem").await;
    assert!(page.text(&problem).await.contains("HTML"));
    let script = "return performance.getEntriesByType('resource').map(entry => entry.name)";
    let loaded = page.run(script).await;
    let outside: Vec<&Value> =
        loaded.as_array().unwrap().iter().filter(|name| !name.as_str().unwrap().starts_with(&caudal.base)).collect();
    let outside: Vec<_> = outside.into_iter().filter(|name| !name.as_str().unwrap().starts_with("blob:")).collect();
    assert!(outside.is_empty(), "the page loaded from other hosts: {outside:?}");
}

#[tokio::test]
async fn the_page_asks_for_an_api_key_and_stores_it_for_the_tab_only() {
    let caudal = with_auth().await;
    let folder = TempDir::new().unwrap();
    let paths = ["dog", "cat"].map(|name| folder.path().join(format!("{name}.jpg")));
    for (number, path) in (0..).zip(&paths) {
        std::fs::write(path, jpeg(&scene(number, 640, 480), 90)).unwrap();
    }
    let page = Browser::start().await;
    page.open(&caudal.url("/")).await;
    page.find("#key-form:not([hidden])").await;
    let submit = |key: &str| {
        format!(
            "const f = document.querySelector('#key-form'); f.querySelector('input').value = '{key}'; f.requestSubmit()"
        )
    };
    page.run(&submit("wrong")).await;
    page.until("return document.querySelector('#status').textContent === 'this key is not valid'").await;
    page.run(&submit(api_key())).await;
    page.find("[data-flow=\"describe\"] [data-stage=\"decode\"]").await;
    page.find("#key-form[hidden]").await;
    page.choose_files("#photo-input", &paths.map(|path| path.display().to_string())).await;
    page.find("[data-report=\"dog\"][data-state=\"done\"] [data-match]").await;
    // Follow a request as an event stream: its URL carries a ticket instead of the key.
    let script = "return import('/console/api.js').then(async api => { \
                  const file = new File([await (await fetch('/console/icon.svg')).blob()], 'x'); \
                  const form = new FormData(); form.append('file', file); \
                  const sent = await api.call('/embeddings/generate', \
                      { method: 'POST', body: form, headers: { prefer: 'respond-async' } }); \
                  const { id } = await sent.json(); const seen = []; \
                  await api.follow(id, kind => seen.push(kind)).catch(problem => seen.push(problem.code)); \
                  return seen; })";
    let seen = page.run(script).await;
    // The request may end before the stream is opened; then there is no `accepted` event.
    let seen: Vec<&str> = seen.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(seen.strip_prefix(&["accepted"]).unwrap_or(&seen), ["failed", "image_type"]);
    // The key survives a reload but is stored for this tab only: no cookie, no local storage, nothing in the URL.
    page.open(&caudal.url("/")).await;
    page.find("[data-flow=\"describe\"] [data-stage=\"decode\"]").await;
    let stored = page.run("return [document.cookie, localStorage.length, location.href]").await;
    assert_eq!(stored, serde_json::json!(["", 0, caudal.url("/")]));
    std::fs::write(std::env::temp_dir().join("caudal-console-key.png"), page.screenshot().await).unwrap();
}

#[tokio::test]
async fn the_api_page_shows_routes_and_schemas() {
    let caudal = Caudal::petalert().await;
    let page = Browser::start().await;
    page.open(&caudal.url("/console/api")).await;
    page.find("#post_embeddings_search_image").await;
    page.find("#schema-Standing").await;
    let script = "return performance.getEntriesByType('resource').map(entry => entry.name)";
    let loaded = page.run(script).await;
    let own = caudal.url("/");
    assert!(loaded.as_array().unwrap().iter().all(|name| name.as_str().unwrap().starts_with(&own)), "{loaded}");
    page.open(&caudal.url("/console/api#follow_request")).await;
    page.find("#follow_request[open]").await;
}
