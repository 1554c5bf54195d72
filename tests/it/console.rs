//! The console in a real browser: the flows are drawn, a dropped photo finds its look-alike.

use serde_json::Value;
use tempfile::TempDir;

use crate::browser::Browser;
use crate::caudal::Caudal;
use crate::pictures::{copy, jpeg, scene};
use crate::tenants::{guarded, key};

#[tokio::test]
async fn a_dropped_photo_finds_its_look_alike_on_the_page() {
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

    // For people to look at.
    let picture = page.screenshot().await;
    std::fs::write(std::env::temp_dir().join("caudal-console.png"), picture).unwrap();
}

#[tokio::test]
async fn a_wrong_file_is_explained_on_the_page_and_nothing_breaks_the_policy() {
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
    let asked = page.run(script).await;
    let outside: Vec<&Value> =
        asked.as_array().unwrap().iter().filter(|name| !name.as_str().unwrap().starts_with(&caudal.base)).collect();
    let outside: Vec<_> = outside.into_iter().filter(|name| !name.as_str().unwrap().starts_with("blob:")).collect();
    assert!(outside.is_empty(), "the page asked elsewhere: {outside:?}");
}

#[tokio::test]
async fn a_key_that_the_service_asks_for_is_typed_into_the_page() {
    let caudal = guarded().await;
    let folder = TempDir::new().unwrap();
    let paths = ["dog", "cat"].map(|name| folder.path().join(format!("{name}.jpg")));
    for (number, path) in (0..).zip(&paths) {
        std::fs::write(path, jpeg(&scene(number, 640, 480), 90)).unwrap();
    }
    let page = Browser::start().await;
    page.open(&caudal.url("/")).await;
    page.find("#key-form:not([hidden])").await;
    let give = |key: &str| {
        format!(
            "const f = document.querySelector('#key-form'); f.querySelector('input').value = '{key}'; f.requestSubmit()"
        )
    };
    page.run(&give("wrong")).await;
    page.until("return document.querySelector('#status').textContent === 'this key is not valid'").await;
    page.run(&give(key())).await;
    page.find("[data-flow=\"describe\"] [data-stage=\"decode\"]").await;
    page.find("#key-form[hidden]").await;
    page.choose_files("#photo-input", &paths.map(|path| path.display().to_string())).await;
    page.find("[data-report=\"dog\"][data-state=\"done\"] [data-match]").await;
    // A request that is followed as a stream, which carries a ticket in place of the key.
    let script = "return import('/console/api.js').then(async api => { \
                  const file = new File([await (await fetch('/console/icon.svg')).blob()], 'x'); \
                  const form = new FormData(); form.append('file', file); \
                  const sent = await api.call('/embeddings/generate', \
                      { method: 'POST', body: form, headers: { prefer: 'respond-async' } }); \
                  const { id } = await sent.json(); const seen = []; \
                  await api.follow(id, kind => seen.push(kind)).catch(problem => seen.push(problem.code)); \
                  return seen; })";
    let seen = page.run(script).await;
    // Whether `accepted` was there before so quick an end is nobody's business.
    let seen: Vec<&str> = seen.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(seen.strip_prefix(&["accepted"]).unwrap_or(&seen), ["failed", "image_type"]);
    // It outlives a reload, and nothing but this tab.
    page.open(&caudal.url("/")).await;
    page.find("[data-flow=\"describe\"] [data-stage=\"decode\"]").await;
    let kept = page.run("return [document.cookie, localStorage.length, location.href]").await;
    assert_eq!(kept, serde_json::json!(["", 0, caudal.url("/")]));
    std::fs::write(std::env::temp_dir().join("caudal-console-key.png"), page.screenshot().await).unwrap();
}
