//! Many connections and streams at once: those over the limits are refused, the others served.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use pipeline::{Content, OutcomeKind, RequestId};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::service::{Service, read_to_end, soon, token};
use crate::tokens::{good, issuers};

/// Sends a byte now and then, and never the end of a head, until the server closes.
async fn dribble(mut stream: TcpStream) -> TcpStream {
    for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: ".iter().chain(std::iter::repeat(&b'a')) {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    stream
}

#[tokio::test]
async fn a_thousand_slow_heads_are_closed_and_others_served() {
    let service = Service::start("[limits]\nheader_ms = 2000\n").await;
    let mut silent = Vec::new();
    let mut dribbling = Vec::new();
    for number in 0..1_000 {
        match number % 3 {
            0 => silent.push(service.raw("").await),
            1 => silent.push(service.raw("GET / HTTP/1.1\r\nA:").await),
            _ => dribbling.push(tokio::spawn(dribble(service.raw("").await))),
        }
    }
    assert_eq!(service.get("/health").send().await.unwrap().status(), 200);
    let closed = join_all(silent.into_iter().map(async |mut stream| read_to_end(&mut stream).await));
    let (silent, dribbling) = tokio::join!(closed, join_all(dribbling));
    for mut stream in dribbling.into_iter().map(Result::unwrap) {
        assert!(!read_to_end(&mut stream).await.contains("200"));
    }
    assert!(silent.iter().all(|answer| !answer.contains("200")));
    assert_eq!(service.get("/health").send().await.unwrap().status(), 200);
}

/// Opens streams, each as a subject from an address, and counts the statuses. Opened streams stay open.
async fn open(
    service: &Service,
    clients: impl Iterator<Item = (String, String)>,
) -> (HashMap<u16, usize>, Vec<reqwest::Response>) {
    let (mut statuses, mut streams) = (HashMap::new(), Vec::new());
    for (subject, address) in clients {
        let request = service.get("/v1/tail/documents").bearer_auth(subject).header("x-forwarded-for", address);
        let response = request.send().await.unwrap();
        *statuses.entry(response.status().as_u16()).or_default() += 1;
        match response.status().as_u16() {
            200 => streams.push(response),
            _ => assert!(response.headers().contains_key("retry-after")),
        }
    }
    (statuses, streams)
}

/// With the default limits.
#[tokio::test]
async fn streams_are_capped_by_subject_by_address_and_in_all() {
    let service = Service::start(&format!(
        "[service]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[limits]\nstreams = 150\nheader_ms = 60000\n{}",
        issuers()
    ))
    .await;
    let subjects: Vec<String> = (0..12).map(|number| good(&format!("tenant-{number}"))).collect();
    let address = |number: usize| format!("198.51.100.{number}");
    // One subject, from several addresses.
    let greedy = (0..30).map(|number| (subjects[0].clone(), address(number)));
    let (statuses, _greedy) = open(&service, greedy).await;
    assert_eq!(statuses, HashMap::from([(200, 20), (429, 10)]));
    // One address, with several subjects.
    let crowd = (0..60).map(|number| (subjects[1 + number % 6].clone(), address(200)));
    let (statuses, _crowd) = open(&service, crowd).await;
    assert_eq!(statuses, HashMap::from([(200, 50), (429, 10)]));
    // All others together: the service is full, not the client.
    let others = (0..100).map(|number| (subjects[11 - number % 5].clone(), address(100 + number)));
    let (statuses, mut others) = open(&service, others).await;
    assert_eq!(statuses, HashMap::from([(200, 80), (503, 20)]));
    let submitted = service.post("/v1/flows/documents").bearer_auth(&subjects[7]).header("prefer", "respond-async");
    assert_eq!(submitted.json(&json!({})).send().await.unwrap().status(), 202);
    // The stream that was opened last is live.
    assert!(soon(others[79].chunk()).await.unwrap().is_some());
}

/// The rest of a stream: the ids of its events, and their text.
async fn rest_of(stream: reqwest::Response) -> (Vec<u32>, String) {
    let text = soon(stream.text()).await.expect("ended, not cut");
    (text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect(), text)
}

#[tokio::test]
async fn a_shutdown_ends_500_streams_and_they_resume_elsewhere() {
    const CLIENTS: usize = 500;
    let config = "[limits]\nstreams_per_address = 1000\n";
    let first = Service::start(config).await;
    let ids: Vec<RequestId> = (0..CLIENTS).map(|number| token(&format!("request-{number}"))).collect();
    let event = |ordinal: u32| Content::json(&json!({"text": format!("part {ordinal}")}));
    for id in &ids {
        for ordinal in 0..3 {
            first.publish(id, OutcomeKind::Data, ordinal, event(ordinal)).await;
        }
    }
    let mut streams = Vec::new();
    for id in &ids {
        streams.push(first.get(&format!("/v1/requests/{id}/events")).send().await.unwrap());
    }
    assert!(streams.iter().all(|stream| stream.status() == 200));
    let (transport, seen) = tokio::join!(first.stop(), join_all(streams.into_iter().map(rest_of)));

    let second = Service::start_on(transport, config, Vec::new()).await;
    for id in &ids {
        second.publish(id, OutcomeKind::Data, 3, event(3)).await;
        second.publish(id, OutcomeKind::Done, 4, event(4)).await;
    }
    let whole = rest_of(second.get(&format!("/v1/requests/{}/events", ids[0])).send().await.unwrap()).await;
    assert_eq!(whole.0, [0, 1, 2, 3, 4]);
    for (id, (seen, text)) in ids.iter().zip(seen) {
        // A retry line, after whole events.
        let (text, pause) = text.split_once("retry: ").expect("a word of when to come again");
        assert!((200..2_000).contains(&pause.trim_end().parse::<u32>().unwrap()), "{pause}");
        let mut request = second.get(&format!("/v1/requests/{id}/events"));
        if let Some(last) = seen.last() {
            request = request.header("last-event-id", *last);
        }
        let (_, rest) = rest_of(request.send().await.unwrap()).await;
        assert_eq!(text.to_owned() + &rest, whole.1);
    }
}
