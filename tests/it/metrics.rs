//! `/metrics`: every metric has a description and base units, and the number of series does not depend on client input.

use std::collections::{BTreeMap, BTreeSet};

use crate::caudal::Caudal;
use crate::test_images::{jpeg, scene};

/// All labels. None holds an id, an address or anything else that clients choose.
const LABELS: [&str; 17] = [
    "collection",
    "component",
    "connection",
    "flow",
    "lane",
    "le",
    "method",
    "model",
    "outcome",
    "quantile",
    "reason",
    "result",
    "route",
    "stage",
    "status",
    "stream",
    "version",
];

/// Units, one of which a histogram's name ends in.
const UNITS: [&str; 5] = ["_seconds", "_bytes", "_events", "_images", "_requests"];

/// Metric families with their types, and all series with their values.
struct Metrics {
    kinds: BTreeMap<String, String>,
    described: BTreeSet<String>,
    series: BTreeMap<String, f64>,
}

impl Metrics {
    async fn of(caudal: &Caudal) -> Self {
        let text = caudal.get("/metrics").await.text().await.unwrap();
        let mut metrics = Self { kinds: BTreeMap::new(), described: BTreeSet::new(), series: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                metrics.kinds.insert(name.to_owned(), kind.to_owned());
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, about) = rest.split_once(' ').unwrap();
                assert!(about.len() > 8, "{line}");
                metrics.described.insert(name.to_owned());
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                metrics.series.insert(series.to_owned(), value.parse().unwrap());
            }
        }
        metrics
    }

    fn check(&self) {
        for (name, kind) in &self.kinds {
            assert!(self.described.contains(name), "{name} is not described");
            assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')), "{name}");
            for wrong in ["_ms", "_millis", "_kib", "_mib", "_minutes", "_percent"] {
                assert!(!name.ends_with(wrong) && !name.contains(&format!("{wrong}_")), "{name} is not in a base unit");
            }
            assert!(name.starts_with("caudal_") || name.starts_with("process_"), "{name} lacks the prefix");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
            match kind.as_str() {
                "counter" => assert!(name.ends_with("_total"), "{name} only grows"),
                "histogram" => assert!(UNITS.iter().any(|unit| name.ends_with(unit)), "{name} names no unit"),
                "gauge" => {}
                other => panic!("{name} is a {other}"),
            }
        }
        for series in self.series.keys() {
            let labels = series.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
            for label in labels.split("\",").filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once('=').unwrap();
                assert!(LABELS.contains(&name), "{series}");
                assert!(value.len() < 70, "{series}");
            }
        }
    }
}

/// Sends requests with every kind of text that a client chooses: paths, ids, a method, headers. `number` makes them
/// unique.
async fn send_made_up_requests(caudal: &Caudal, number: u32) {
    for path in [
        format!("/nothing/{number}"),
        format!("/v1/requests/made-up-{number}"),
        format!("/v1/flows/made-up-{number}"),
        format!("/v1/tail/made-up-{number}"),
        format!("/reports/made-up-{number}"),
        format!("/v1/dead-letters/{number}"),
    ] {
        assert!(caudal.get(&path).await.status().is_client_error(), "{path}");
    }
    let method = reqwest::Method::from_bytes(format!("MADE{number}").as_bytes()).unwrap();
    let odd = caudal.client.request(method, caudal.url("/v1/flows")).header("user-agent", format!("made-up-{number}"));
    assert_eq!(odd.send().await.unwrap().status(), 405);
    let photo = jpeg(&scene(number % 3, 200, 150), 80);
    assert_eq!(caudal.post_file(&format!("/embeddings/index/made-up-{number}"), photo.clone()).await.status(), 200);
    assert_eq!(caudal.post_file("/embeddings/search_image", photo).await.status(), 200);
    assert_eq!(caudal.post_file("/embeddings/generate", b"no image".to_vec()).await.status(), 415);
}

#[tokio::test]
async fn every_metric_is_described_in_base_units_and_clients_cannot_add_series() {
    let caudal = Caudal::petalert().await;
    // A request is counted after it was answered: the second read includes the first.
    Metrics::of(&caudal).await;
    for number in 0..4 {
        send_made_up_requests(&caudal, number).await;
    }
    let before = Metrics::of(&caudal).await;
    before.check();
    for needed in [
        "caudal_broker_storage_bytes",
        "caudal_build_info",
        "caudal_dead_letters",
        "caudal_flow_backlog_events",
        "caudal_http_requests_total",
        "caudal_index_points_written_total",
        "caudal_model_embed_seconds",
        "caudal_stage_events_total",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ] {
        assert!(before.kinds.contains_key(needed), "{needed} is missing: the requests did not reach enough parts");
    }
    for number in 4..24 {
        send_made_up_requests(&caudal, number).await;
    }
    let after = Metrics::of(&caudal).await;
    after.check();
    let new: Vec<&String> = after.series.keys().filter(|series| !before.series.contains_key(*series)).collect();
    assert!(new.is_empty(), "new series from client input: {new:#?}");
    assert!(!after.series.keys().any(|series| series.contains("made-up") || series.contains("MADE")));
}
