//! Limits per client and of the whole service.

use serde_json::json;

use crate::service::{Service, problem, read_checked, read_to_end, soon};
use crate::tokens::{good, issuers};

const ROUTE: &str = r#"
    [[route]]
    path = "/rare"
    flow = "describe"
    limit = { rate = "3/hour", per = "client" }
"#;

#[tokio::test]
async fn a_client_cannot_escape_its_rate_by_forged_headers() {
    let service = Service::start(ROUTE).await;
    service.echo("describe").await;
    for i in 0..3 {
        let request = service.post("/rare").header("x-forwarded-for", format!("10.0.0.{i}"));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let refused = service.post("/rare").header("x-forwarded-for", "10.9.9.9").send().await.unwrap();
    let pause: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1_100..=1_200).contains(&pause), "{pause}");
    assert!(refused.headers().contains_key("caudal-request"));
    problem(refused, 429, "rate_limited").await;
}

#[tokio::test]
async fn rates_can_be_switched_off() {
    let service = Service::start(&format!("[limits]\nenabled = false\n{ROUTE}")).await;
    service.echo("describe").await;
    for _ in 0..10 {
        assert_eq!(service.post("/rare").send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn event_streams_are_counted() {
    let service = Service::start("[limits]\nstreams = 1").await;
    let ask = || service.post("/v1/flows/documents").header("accept", "text/event-stream").json(&json!({})).send();
    let first = ask().await.unwrap();
    assert_eq!(first.status(), 200);
    let refused = ask().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, 503, "streams_full").await;
}

const CLASSES: &str = r#"
    [service]
    trusted_proxies = ["127.0.0.0/8"]
    [limits.class.ai]
    rate = "5/hour"
    [[route]]
    path = "/recognise"
    flow = "describe"
    class = "ai"
    [[route]]
    path = "/generate"
    flow = "describe"
    class = "ai"
    [[route]]
    path = "/reports/{report_id}"
    method = "GET"
    class = "crud"
    record = { store = "reports", id = "report_id" }
"#;

#[tokio::test]
async fn routes_of_a_class_share_its_rate_and_say_what_is_left() {
    let service = Service::start(CLASSES).await;
    service.echo("describe").await;
    for (used, path) in ["/recognise", "/generate", "/recognise"].into_iter().enumerate() {
        let answer = service.post(path).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["ratelimit-policy"], "\"ai\";q=5;w=3600");
        let left = answer.headers()["ratelimit"].to_str().unwrap().to_owned();
        assert!(left.starts_with(&format!("\"ai\";r={};t=", 4 - used)), "{left}");
    }
    let other = service.get("/reports/x").send().await.unwrap();
    assert_eq!(other.headers()["ratelimit-policy"], "\"crud\";q=600;w=60");
    problem(other, 404, "no_record").await;
}

#[tokio::test]
async fn what_a_client_writes_before_its_proxy_changes_nothing() {
    let service = Service::start(CLASSES).await;
    service.echo("describe").await;
    let mut statuses = Vec::new();
    for number in 0..1_000_u32 {
        // The proxy wrote the rightmost address, the client those before it.
        let forwarded = format!("203.0.113.{}, 10.0.{}.{}, 198.51.100.7", number % 250, number % 200, number % 250);
        let answer = service.post("/recognise").header("x-forwarded-for", forwarded).send().await.unwrap();
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5);
    assert!(statuses[5..].iter().all(|status| *status == 429));
    // The forged addresses are not limited, nor are others; an entry that is not an address counts as the proxy.
    for forwarded in ["203.0.113.1", "198.51.100.8", "203.0.113.9, garbage"] {
        let answer = service.post("/recognise").header("x-forwarded-for", forwarded).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{forwarded}");
    }
}

#[tokio::test]
async fn an_authenticated_caller_is_counted_across_addresses() {
    let service = Service::start(&format!("{}{CLASSES}", issuers())).await;
    service.echo("describe").await;
    let ask = |tenant: &str, address: &str| {
        service.post("/recognise").bearer_auth(good(tenant)).header("x-forwarded-for", address.to_owned()).send()
    };
    for address in ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5"] {
        assert_eq!(ask("acme", address).await.unwrap().status(), 200);
    }
    problem(ask("acme", "198.51.100.6").await.unwrap(), 429, "rate_limited").await;
    assert_eq!(ask("other", "198.51.100.6").await.unwrap().status(), 200);
}

#[tokio::test]
async fn guessing_keys_is_limited_and_valid_ones_still_work() {
    let service = Service::start(&format!("{}[limits.class.auth]\nrate = \"5/hour\"\n", issuers())).await;
    for _ in 0..5 {
        let refused = service.get("/v1/flows").bearer_auth("guess").send().await.unwrap();
        problem(refused, 401, "unauthenticated").await;
    }
    let refused = service.get("/v1/flows").bearer_auth("guess").send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, 429, "rate_limited").await;
    assert_eq!(service.get("/v1/flows").bearer_auth(good("acme")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn one_client_cannot_take_all_streams() {
    let config = format!("[limits]\nstreams_per_client = 2\nstreams_per_address = 3\n{}", issuers());
    let service = Service::start(&config).await;
    let ask = |tenant: &str| {
        let request = service.post("/v1/flows/documents").bearer_auth(good(tenant));
        request.header("accept", "text/event-stream").json(&json!({})).send()
    };
    let (first, second) = (ask("acme").await.unwrap(), ask("acme").await.unwrap());
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    let refused = ask("acme").await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, 429, "too_many_streams").await;
    let third = ask("other").await.unwrap();
    assert_eq!(third.status(), 200);
    problem(ask("third").await.unwrap(), 429, "too_many_streams").await;
    drop((first, third));
    let freed = async {
        while ask("third").await.unwrap().status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    soon(freed).await;
}

#[tokio::test]
async fn the_config_limits_the_size_of_headers() {
    let service = Service::start("[limits]\nheaders = 10\nheader_bytes = \"8 KiB\"\n").await;
    let ask = |count: usize, length: usize| {
        let request = service.get("/health");
        (0..count).fold(request, |request, i| request.header(format!("x-{i}"), "y".repeat(length))).send()
    };
    assert_eq!(ask(3, 10).await.unwrap().status(), 200);
    assert_eq!(ask(20, 10).await.unwrap().status(), 431);
    assert_eq!(ask(3, 4_000).await.unwrap().status(), 431);
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let limits = "[limits]\nconnections_per_peer = 2\nheader_ms = 600000\n";
    let service = Service::start(limits).await;
    let (first, second) = (service.raw("").await, service.raw("").await);
    let mut third = service.raw("").await;
    assert_eq!(read_to_end(&mut third).await, "");
    drop(first);
    let freed = async {
        while service.get("/health").send().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(freed).await;
    drop(second);
    // A trusted proxy forwards many clients.
    let service = Service::start(&format!("[service]\ntrusted_proxies = [\"127.0.0.1\"]\n{limits}")).await;
    let _held = [service.raw("").await, service.raw("").await, service.raw("").await];
    assert_eq!(service.get("/health").send().await.unwrap().status(), 200);
}

/// A client that announces much and sends little takes only the memory of what it sent.
#[tokio::test]
async fn a_slow_body_does_not_block_others() {
    let service = Service::start("[limits]\nmemory = \"512 KiB\"\nupload_grace_ms = 600000\n").await;
    let head = "POST /v1/flows/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let mut slow = Vec::new();
    for _ in 0..10 {
        slow.push(service.raw(format!("{head}Content-Length: 250000\r\n\r\n[")).await);
    }
    // One client has sent nearly all of its body.
    slow.push(service.raw(format!("{head}Content-Length: 250000\r\n\r\n[{}", " ".repeat(249_000))).await);
    for length in [10, 60_000] {
        let request = service.post("/v1/flows/documents").header("prefer", "respond-async");
        let answer = request.json(&"x".repeat(length)).send().await.unwrap();
        assert_eq!(answer.status(), 202, "{length}");
    }
}

#[test]
fn wrong_limits_are_reported() {
    let route = "[[route]]\npath = \"/a\"\nflow = \"describe\"\n";
    let cases = [
        (format!("{route}class = \"al\""), "use one of ai, auth, crud"),
        (format!("{route}class = \"ai\"\nlimit = {{ rate = \"1/s\" }}"), "keep one of class and limit"),
        ("[limits.class.ai]\nrate = \"often\"".to_owned(), "is not a rate"),
        ("[limits.class.ai]\nrat = \"1/s\"".into(), "rat"),
        ("[limits.class.\"a b\"]\nrate = \"1/s\"".into(), "the name of a class"),
        ("[service]\ntrusted_proxies = [\"10.0.0.0/33\"]".into(), "is not a network"),
        ("[limits]\nheader_bytes = \"1 KiB\"".into(), "give 8 KiB to 1 MiB"),
    ];
    for (config, expected) in cases {
        let (_, problems) = read_checked(&config);
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{config}: {problems:?}");
    }
}
