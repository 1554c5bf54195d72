//! A worker that is faster than the gateway: its results are stored before the gateway's `accepted`, and every stream
//! begins with `accepted` all the same.

use futures_util::StreamExt;
use reqwest::header;

use crate::broker_client::Broker;
use crate::cluster::{Cluster, Process};

const STREAMS: usize = 1_000;
/// Streams at once.
const CONCURRENCY: usize = 16;

/// Posts a request and reads its answer as a stream; returns its id, and the ids and kinds of its events.
async fn stream(process: &Process, number: usize) -> (String, Vec<(String, String)>) {
    let request = process.post("/v1/flows/work").header(header::ACCEPT, "text/event-stream");
    let response = request.body(format!("body {number}")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let id = response.headers()["caudal-request"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    let field = |name: &'static str| text.lines().filter_map(move |line| line.strip_prefix(name)).map(str::to_owned);
    (id, field("id: ").zip(field("event: ")).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_begin_with_accepted_although_the_worker_is_faster() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    std::fs::write(cluster.folder().join("late-acceptance"), "").unwrap();
    let process = cluster.start().await;
    let streams = futures_util::stream::iter((0..STREAMS).map(|number| stream(&process, number)));
    let streams: Vec<_> = streams.buffer_unordered(CONCURRENCY).collect().await;
    let expected = [("0", "accepted"), ("1", "done")].map(|(id, kind)| (id.to_owned(), kind.to_owned()));
    for (id, events) in &streams {
        assert_eq!(events[..], expected, "{id}");
    }
    let broker = Broker::open(&cluster.data()).await;
    let mut overtaken = 0;
    for (id, _) in &streams {
        overtaken += usize::from(broker.was_overtaken(id).await);
    }
    assert!(overtaken >= STREAMS * 9 / 10, "the worker was faster for {overtaken} of {STREAMS} only");
}
