//! `/v1/requests`: status, events from anywhere, results, cancellation.

use pipeline::{Content, OutcomeKind, RequestId, ResultAck, Transport};
use serde_json::{Value, json};

use crate::service::{Service, problem, read_events, soon, token};

async fn accepted(service: &Service) -> RequestId {
    let request = service.post("/v1/flows/documents").header("prefer", "respond-async").json(&json!({}));
    token(request.send().await.unwrap().headers()["caudal-request"].to_str().unwrap())
}

/// The ids and kinds of a whole event stream.
async fn events(service: &Service, id: &RequestId, after: Option<&str>) -> Vec<(u32, String)> {
    let mut request = service.get(&format!("/v1/requests/{id}/events"));
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    let event = |block: &str| {
        let mut lines = block.lines();
        let id = lines.next().unwrap().strip_prefix("id: ").unwrap().parse().unwrap();
        (id, lines.next().unwrap().strip_prefix("event: ").unwrap().to_owned())
    };
    text.split_terminator("\n\n").map(event).collect()
}

#[tokio::test]
async fn events_resume_on_another_gateway_without_gap_or_repeat() {
    let first = Service::start("").await;
    let id = accepted(&first).await;
    first.publish(&id, OutcomeKind::Progress, 1, Content::json(&json!({}))).await;
    first.publish(&id, OutcomeKind::Data, 2, Content::json(&json!({}))).await;
    let second = Service::start_on(first.stop().await, "", Vec::new()).await;
    let url = second.url(&format!("/v1/requests/{id}/events"));
    let mut live = second.client.get(url).header("last-event-id", "1").send().await.unwrap();
    let piece = soon(live.chunk()).await.unwrap().unwrap();
    assert!(piece.starts_with(b"id: 2\nevent: data\n"), "{piece:?}");
    second.publish(&id, OutcomeKind::Data, 3, Content::json(&json!({}))).await;
    second.publish(&id, OutcomeKind::Done, 4, Content::json(&json!({}))).await;
    let mut rest = Vec::new();
    while let Some(piece) = soon(live.chunk()).await.unwrap() {
        rest.extend_from_slice(&piece);
    }
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.starts_with("id: 3\nevent: data\n") && rest.contains("id: 4\nevent: done\n"), "{rest}");

    let all: Vec<u32> = events(&second, &id, None).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(all, [0, 1, 2, 3, 4]);
    assert_eq!(events(&second, &id, Some("3")).await, [(4, "done".to_owned())]);
    let ended = second.get(&format!("/v1/requests/{id}/events")).header("last-event-id", "4").send().await.unwrap();
    assert_eq!(ended.status(), 204);
    let wrong =
        second.get(&format!("/v1/requests/{id}/events")).header("last-event-id", "4; DROP").send().await.unwrap();
    problem(wrong, 400, "bad_last_event_id").await;
}

/// Clients that cannot set headers resume by the query (polyfills of `EventSource`, a page that was reloaded).
#[tokio::test]
async fn events_resume_after_the_id_in_the_query_unless_the_header_has_one() {
    let service = Service::start("").await;
    let id = accepted(&service).await;
    service.publish(&id, OutcomeKind::Data, 1, Content::json(&json!({}))).await;
    service.publish(&id, OutcomeKind::Done, 2, Content::json(&json!({}))).await;
    let url = format!("/v1/requests/{id}/events");
    for (query, header, ids) in [
        ("?lastEventId=0", None, vec!["1", "2"]),
        ("?other=x&lastEventId=1", None, vec!["2"]),
        ("?lastEventId=", None, vec!["0", "1", "2"]),
        ("?lastEventId=0", Some(""), vec!["1", "2"]),
        ("?lastEventId=0", Some("1"), vec!["2"]),
        ("?lastEventId=x", Some("1"), vec!["2"]),
        ("?lasteventid=1", None, vec!["0", "1", "2"]),
    ] {
        let request = service.get(&format!("{url}{query}"));
        let request = header.into_iter().fold(request, |request, id| request.header("last-event-id", id));
        let (text, _) = read_events(request.send().await.unwrap()).await;
        let seen: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(seen, ids, "{query} {header:?}");
    }
    assert_eq!(service.get(&format!("{url}?lastEventId=2")).send().await.unwrap().status(), 204);
    for query in ["?lastEventId=x", "?lastEventId=-1", "?lastEventId=1.0", "?lastEventId=1&lastEventId=2"] {
        let refused = service.get(&format!("{url}{query}")).send().await.unwrap();
        let body = problem(refused, 400, "bad_last_event_id").await;
        assert!(body["detail"].as_str().unwrap().contains("lastEventId"), "{query}: {body}");
    }
}

/// Each attempt counts its results from one, and the second may have fewer than the first.
#[tokio::test]
async fn the_end_has_a_higher_id_than_the_results_of_an_earlier_attempt() {
    let service = Service::start("").await;
    let id = accepted(&service).await;
    let live = service.get(&format!("/v1/requests/{id}/events")).send().await.unwrap();
    for ordinal in [2, 3] {
        service.publish(&id, OutcomeKind::Progress, ordinal, Content::json(&json!({}))).await;
    }
    service.publish(&id, OutcomeKind::Done, 1, Content::json(&json!({}))).await;
    let (live, whole) = read_events(live).await;
    let ids: Vec<&str> = live.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!((ids.as_slice(), whole), (["0", "2", "3", "4"].as_slice(), true));
    let ids: Vec<u32> = events(&service, &id, None).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [0, 2, 3, 4]);
    assert_eq!(events(&service, &id, Some("3")).await, [(4, "done".to_owned())]);
    let ended = service.get(&format!("/v1/requests/{id}/events")).header("last-event-id", "4").send().await.unwrap();
    assert_eq!(ended.status(), 204);
}

#[tokio::test]
async fn a_reader_that_falls_behind_catches_up_from_the_history() {
    let service = Service::start("").await;
    let id = accepted(&service).await;
    let url = service.url(&format!("/v1/requests/{id}/events"));
    let response = service.client.get(url).send().await.unwrap();
    // Far more than the watch holds and the sockets buffer, before the first byte is read.
    let large = Content::json(&json!({"text": "x".repeat(20_000)}));
    for ordinal in 1..=1_000 {
        service.publish(&id, OutcomeKind::Data, ordinal, large.clone()).await;
    }
    service.publish(&id, OutcomeKind::Done, 1_001, Content::json(&json!({}))).await;
    let text = soon(response.text()).await.unwrap();
    let ids: Vec<u32> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert_eq!(ids, (0..=1_001).collect::<Vec<u32>>());
}

#[tokio::test]
async fn a_cancellation_is_the_one_terminal() {
    let service = Service::start("").await;
    let id = accepted(&service).await;
    let path = format!("/v1/requests/{id}");
    service.publish(&id, OutcomeKind::Progress, 1, Content::json(&json!({}))).await;
    let cancelled = service.client.delete(service.url(&path)).send().await.unwrap();
    assert_eq!(cancelled.status(), 200);
    assert_eq!(cancelled.json::<Value>().await.unwrap()["status"], "cancelled");
    let late = service.publish(&id, OutcomeKind::Done, 3, Content::json(&json!({}))).await;
    assert_eq!(late, ResultAck::Refused);
    problem(service.client.delete(service.url(&path)).send().await.unwrap(), 409, "already_ended").await;
    let standing: Value = service.get(&path).send().await.unwrap().json().await.unwrap();
    assert_eq!((&standing["status"], &standing["error"]["code"]), (&json!("cancelled"), &json!("cancelled")));
    assert_eq!(events(&service, &id, Some("1")).await, [(2, "cancelled".to_owned())]);
    problem(service.get(&format!("{path}/result")).send().await.unwrap(), 409, "cancelled").await;
}

#[tokio::test]
async fn an_unknown_id_is_not_found_and_a_malformed_one_refused() {
    let service = Service::start("").await;
    for path in ["/v1/requests/nobody", "/v1/requests/nobody/events", "/v1/requests/nobody/result"] {
        problem(service.get(path).send().await.unwrap(), 404, "no_request").await;
    }
    problem(service.client.delete(service.url("/v1/requests/nobody")).send().await.unwrap(), 404, "no_request").await;
    for id in ["a.b", "*", "%3E", "a%2Fb", "x%0d%0aPUB", &"x".repeat(65)] {
        for path in [format!("/v1/requests/{id}"), format!("/v1/requests/{id}/events")] {
            problem(service.get(&path).send().await.unwrap(), 400, "bad_parameter").await;
        }
        let delete = service.client.delete(service.url(&format!("/v1/requests/{id}")));
        problem(delete.send().await.unwrap(), 400, "bad_parameter").await;
    }
}

#[tokio::test]
async fn an_id_that_is_not_utf8_is_refused() {
    let service = Service::start("").await;
    let cases = [
        ("GET", "/v1/requests/%FF"),
        ("DELETE", "/v1/requests/%FF"),
        ("GET", "/v1/requests/%FF/events"),
        ("GET", "/v1/requests/%FF/result"),
        ("POST", "/v1/requests/%FF/ticket"),
        ("GET", "/v1/tail/%FF"),
        ("POST", "/v1/tail/%FF/ticket"),
        ("GET", "/v1/dead-letters/%FF"),
        ("DELETE", "/v1/dead-letters/%FF"),
        ("POST", "/v1/dead-letters/%FF/retry"),
        ("POST", "/v1/flows/%FF"),
    ];
    for (method, path) in cases {
        let request = service.client.request(method.parse().unwrap(), service.url(path));
        problem(request.send().await.unwrap(), 400, "bad_parameter").await;
    }
}

#[tokio::test]
async fn a_result_is_served_when_there_is_one() {
    let service = Service::start("").await;
    let id = accepted(&service).await;
    let path = format!("/v1/requests/{id}/result");
    problem(service.get(&path).send().await.unwrap(), 409, "not_ended").await;
    service.publish(&id, OutcomeKind::Done, 1, Content::inline("text/html", "<script>1</script>")).await;
    let page = service.get(&path).send().await.unwrap();
    assert_eq!(page.headers()["content-disposition"], "attachment");
    assert_eq!(page.headers()["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
    assert_eq!(service.transport.outcomes(&id).await.unwrap().len(), 2);
}
