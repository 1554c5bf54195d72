//! Authentication: API keys and tokens, and the requests that their callers see.

use axum::http::StatusCode;
use pipeline::{Content, OutcomeKind, RequestId, Transport};
use serde_json::{Value, json};

use crate::service::{Service, problem, read_checked, read_events, token};
use crate::tokens::{self, claims, good, issuers, key_file, now, sign};

const ROUTES: &str = r#"
    [[route]]
    path = "/ask"
    flow = "describe"
    body = { json = true }
    [[route]]
    path = "/reports"
    flow = "report"
    body = { form = { json = "report", files = "photo" } }
    record = { store = "reports", id = "report_id" }
    [[route]]
    path = "/reports/{report_id}"
    method = "GET"
    record = { store = "reports", id = "report_id" }
"#;

const KEY: &str = "correct horse battery";
/// Without any content.
const KEY_SHA256: &str = "ad25c1d3b83ee2f0fbd0dd7dba0ba9f8a1b3d9c5ac0e32ed90ba6ae40a0a5c58";

fn keys(more: &str) -> String {
    let digest = sha256(KEY);
    format!(
        "[auth]\n{more}\n[auth.key.shop]\nsha256 = \"{digest}\"\ntenant = \"acme\"\n[auth.key.boss]\nkey = {{ file = \
         \"{}\" }}\ntenant = \"ops\"\nadmin = true\n{ROUTES}",
        key_file("secret.txt")
    )
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn tokens_service() -> Service {
    Service::start(&format!("{}{ROUTES}", issuers())).await
}

#[tokio::test]
async fn a_key_authenticates_its_caller() {
    let service = Service::start(&keys("")).await;
    service.echo("describe").await;
    let ask = || service.post("/ask").json(&json!({}));
    for request in [
        ask(),
        ask().bearer_auth("wrong horse battery"),
        ask().header("x-api-key", ""),
        ask().basic_auth(KEY, Some("")),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"caudal\"");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        problem(response, 401, "unauthenticated").await;
    }
    for request in [ask().bearer_auth(KEY), ask().header("x-api-key", KEY)] {
        let seen: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(seen["params"], json!({"_tenant": "acme", "_subject": "shop"}));
    }
    let two = ask().bearer_auth(KEY).header("x-api-key", KEY).send().await.unwrap();
    problem(two, 401, "unauthenticated").await;
}

#[tokio::test]
async fn health_and_readiness_are_open_and_nothing_else() {
    let service = Service::start(&keys("")).await;
    for open in ["/health", "/ready", "/", "/console/console.js"] {
        assert_eq!(service.get(open).send().await.unwrap().status(), 200, "{open}");
    }
    for closed in
        ["/metrics", "/v1/flows", "/v1/dead-letters", "/v1/requests/x", "/nothing", "/reports/x", "/openapi.json"]
    {
        problem(service.get(closed).send().await.unwrap(), 401, "unauthenticated").await;
    }
    problem(service.get("/nothing").bearer_auth(KEY).send().await.unwrap(), 404, "no_route").await;
    assert_eq!(service.get("/metrics").bearer_auth(KEY).send().await.unwrap().status(), 200);
    let service = Service::start(&keys("open_metrics = true")).await;
    assert_eq!(service.get("/metrics").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn dead_letters_are_for_administrators() {
    let service = Service::start(&keys("")).await;
    problem(service.get("/v1/dead-letters").bearer_auth(KEY).send().await.unwrap(), 403, "not_allowed").await;
    let boss = std::str::from_utf8(tokens::SECRET).unwrap();
    assert_eq!(service.get("/v1/dead-letters").bearer_auth(boss).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn each_algorithm_is_taken_from_its_own_issuer() {
    let service = tokens_service().await;
    service.echo("describe").await;
    for issuer in ["hs", "rs", "es", "ed"] {
        // The second check uses the cache.
        for _ in 0..2 {
            let token = sign(issuer, &claims(issuer, "acme"));
            let response = service.post("/ask").bearer_auth(token).json(&json!({})).send().await.unwrap();
            assert_eq!(response.status(), 200, "{issuer}");
            let seen: Value = response.json().await.unwrap();
            assert_eq!(seen["params"], json!({"_tenant": "acme", "_subject": "ann"}));
        }
        // Signed by one issuer, naming another.
        let other = if issuer == "hs" { "rs" } else { "hs" };
        let token = sign(issuer, &claims(other, "acme"));
        let refused = service.post("/ask").bearer_auth(token).json(&json!({})).send().await.unwrap();
        problem(refused, 401, "unauthenticated").await;
    }
}

#[tokio::test]
async fn forged_tokens_are_refused_all_alike() {
    let service = tokens_service().await;
    let with = |name: &str, value: Value| {
        let mut claims = claims("hs", "acme");
        claims[name] = value;
        sign("hs", &claims)
    };
    let without = |name: &str| {
        let mut claims = claims("hs", "acme");
        claims.as_object_mut().unwrap().remove(name);
        sign("hs", &claims)
    };
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let twice = claims("hs", "acme").to_string().replacen('{', r#"{"sub":"root","#, 1);
    let late = now() + 600;
    let forged = [
        ("alg none", tokens::unsigned(&claims("hs", "acme"))),
        ("the public key as a secret", tokens::signed_with_public_key(&claims("rs", "acme"))),
        ("exp as text", with("exp", json!(late.to_string()))),
        ("exp as a list", with("exp", json!([late]))),
        ("no exp", without("exp")),
        ("expired", with("exp", json!(now() - 61))),
        ("not yet", with("nbf", json!(now() + 120))),
        ("nbf as text", with("nbf", json!("0"))),
        ("another audience", with("aud", json!("other"))),
        ("a list of audiences", with("aud", json!(["caudal", "other"]))),
        ("no audience", without("aud")),
        ("no issuer", without("iss")),
        ("another issuer", with("iss", json!("https://evil"))),
        ("no subject", without("sub")),
        ("a subject that is a number", with("sub", json!(7))),
        ("no tenant", without("org")),
        ("a tenant that is a list", with("org", json!(["acme"]))),
        ("a claim twice", tokens::signed_text(header, &twice)),
        (
            "crit",
            tokens::signed_text(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, &claims("hs", "acme").to_string()),
        ),
        ("a key id that is a path", tokens::with_key_id("../../dev/null", &claims("hs", "acme"))),
        ("no token", "a.b.c".into()),
        ("a long one", format!("{}.{}.{}", "a".repeat(4_000), "b".repeat(4_000), "c".repeat(4_000))),
        ("a good one, altered", good("acme").replace('.', ".e")),
    ];
    let mut bodies = Vec::new();
    for (name, token) in forged {
        let response = service.get("/v1/flows").bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED.as_u16(), "{name}");
        bodies.push(response.text().await.unwrap());
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "a refusal says nothing of its reason: {bodies:?}");
    let token = "x".repeat(64 << 10);
    assert_eq!(service.get("/v1/flows").bearer_auth(token).send().await.unwrap().status(), 431);
    assert_eq!(service.get("/v1/flows").bearer_auth(good("acme")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stream_ends_soon_after_its_token() {
    let service = tokens_service().await;
    let response = service.post("/v1/flows/documents").bearer_auth(good("acme")).header("prefer", "respond-async");
    let id = id_of(&response.json(&json!({})).send().await.unwrap());
    let mut claims = claims("hs", "acme");
    // Within the leeway, so that the stream ends soon.
    claims["exp"] = json!(now() - 29);
    let token = sign("hs", &claims);
    let events = format!("/v1/requests/{id}/events");
    let stream = service.get(&events).bearer_auth(&token).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let (text, whole) = read_events(stream).await;
    assert!(text.contains("event: accepted") && !text.contains("event: done"), "{text}");
    assert!(!whole, "a clean end would look like the whole stream");
}

fn id_of(response: &reqwest::Response) -> RequestId {
    token(response.headers()["caudal-request"].to_str().unwrap())
}

#[tokio::test]
async fn another_tenants_requests_do_not_exist() {
    let service = tokens_service().await;
    let (mine, theirs) = (good("acme"), good("other"));
    let asked = service.post("/v1/flows/documents").bearer_auth(&mine).header("prefer", "respond-async");
    let id = id_of(&asked.json(&json!({})).send().await.unwrap());
    service.publish(&id, OutcomeKind::Data, 1, Content::json(&json!({"secret": 1}))).await;
    let paths = ["", "/events", "/result"].map(|rest| format!("/v1/requests/{id}{rest}"));
    for path in &paths {
        let other = service.get(path).bearer_auth(&theirs).header("last-event-id", "0").send().await.unwrap();
        let unknown = path.replace(id.as_str(), "nobody");
        let unknown = service.get(&unknown).bearer_auth(&theirs).send().await.unwrap();
        let (other, unknown) = (problem(other, 404, "no_request").await, problem(unknown, 404, "no_request").await);
        let text = other.to_string().replace(id.as_str(), "nobody");
        assert_eq!(text, unknown.to_string());
    }
    let url = service.url(&paths[0]);
    let delete = |token: &str| service.client.delete(&url).bearer_auth(token).send();
    problem(delete(&theirs).await.unwrap(), 404, "no_request").await;
    let ticket = service.post(&format!("{}/ticket", paths[0])).bearer_auth(&theirs).send().await.unwrap();
    problem(ticket, 404, "no_request").await;
    assert_eq!(service.get(&paths[0]).bearer_auth(&mine).send().await.unwrap().status(), 200);
    // The same holds on another gateway, after a restart.
    let config = format!("{}{ROUTES}", issuers());
    let service = Service::start_on(service.stop().await, &config, Vec::new()).await;
    assert_eq!(service.get(&paths[0]).bearer_auth(&mine).send().await.unwrap().status(), 200);
    problem(service.get(&paths[0]).bearer_auth(&theirs).send().await.unwrap(), 404, "no_request").await;
    let cancelled = service.client.delete(service.url(&paths[0])).bearer_auth(&mine).send().await.unwrap();
    assert_eq!(cancelled.status(), 200);
}

#[tokio::test]
async fn tenants_have_their_own_records() {
    let service = tokens_service().await;
    let report = |tenant: &str, name: &str| {
        let report = json!({"id": "r1", "name": name});
        service.post("/reports").bearer_auth(good(tenant)).json(&report).send()
    };
    assert_eq!(report("acme", "Luna").await.unwrap().status(), 200);
    let read = |tenant: &str| service.get("/reports/r1").bearer_auth(good(tenant)).send();
    problem(read("other").await.unwrap(), 404, "no_record").await;
    assert_eq!(report("other", "Rex").await.unwrap().status(), 200);
    for (tenant, name) in [("acme", "Luna"), ("other", "Rex")] {
        let kept: Value = read(tenant).await.unwrap().json().await.unwrap();
        assert_eq!((&kept["report"]["name"], &kept["report"]["id"]), (&json!(name), &json!("r1")));
    }
}

#[tokio::test]
async fn a_ticket_opens_one_stream_once() {
    let service = tokens_service().await;
    let mine = good("acme");
    let ask =
        || service.post("/v1/flows/documents").bearer_auth(&mine).header("prefer", "respond-async").json(&json!({}));
    let (id, other) = (id_of(&ask().send().await.unwrap()), id_of(&ask().send().await.unwrap()));
    service.publish(&id, OutcomeKind::Done, 1, Content::json(&json!({}))).await;
    let issue = |id: RequestId| {
        let request = service.post(&format!("/v1/requests/{id}/ticket")).bearer_auth(&mine);
        async move {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 201);
            response.json::<Value>().await.unwrap()
        }
    };
    let issued = issue(id.clone()).await;
    let (ticket, url) = (issued["ticket"].as_str().unwrap(), issued["url"].as_str().unwrap());
    assert_eq!(
        (url, &issued["expires_in"]),
        (format!("/v1/requests/{id}/events?ticket={ticket}").as_str(), &json!(60))
    );
    // On another gateway.
    let config = format!("{}{ROUTES}", issuers());
    let second = Service::start_on(service.transport.clone(), &config, Vec::new()).await;
    let stream = second.get(url).send().await.unwrap();
    assert_eq!(
        (stream.status().as_u16(), &stream.headers()["referrer-policy"]),
        (200, &"no-referrer".parse().unwrap())
    );
    assert!(stream.text().await.unwrap().contains("event: done"));
    problem(service.get(url).send().await.unwrap(), 401, "unauthenticated").await;

    let issued = issue(id.clone()).await;
    let ticket = issued["ticket"].as_str().unwrap();
    let wrong = format!("/v1/requests/{other}/events?ticket={ticket}");
    problem(service.get(&wrong).send().await.unwrap(), 401, "unauthenticated").await;
    for path in [format!("/v1/requests/{id}?ticket={ticket}"), format!("/v1/requests/{id}/result?ticket={ticket}")] {
        problem(service.get(&path).send().await.unwrap(), 401, "unauthenticated").await;
    }
    let referred =
        service.get(&format!("/v1/requests/{id}/events")).header("referer", format!("http://h/?ticket={ticket}"));
    problem(referred.send().await.unwrap(), 401, "unauthenticated").await;
    for none in ["", "x", &"0".repeat(64), "%00", "../x"] {
        problem(
            service.get(&format!("/v1/requests/{id}/events?ticket={none}")).send().await.unwrap(),
            401,
            "unauthenticated",
        )
        .await;
    }
}

#[tokio::test]
async fn a_ticket_that_has_expired_opens_nothing() {
    let service = tokens_service().await;
    let mine = good("acme");
    let asked =
        service.post("/v1/flows/documents").bearer_auth(&mine).header("prefer", "respond-async").json(&json!({}));
    let id = id_of(&asked.send().await.unwrap());
    let issued = service.post(&format!("/v1/requests/{id}/ticket")).bearer_auth(&mine).send().await.unwrap();
    let issued: Value = issued.json().await.unwrap();
    // Ages every ticket by 61 seconds instead of waiting.
    let mut aged = 0;
    for slot in 0..1024 {
        let (store, key) = (token("caudal-tickets"), token(&format!("slot-{slot}")));
        let Some(record) = service.transport.get_record(&store, &key).await.unwrap() else { continue };
        let text = String::from_utf8(record.value.to_vec()).unwrap();
        assert!(!text.contains(issued["ticket"].as_str().unwrap()), "the ticket itself is not stored");
        let mut notes: Value = serde_json::from_str(&text).unwrap();
        notes[0]["until"] = json!(notes[0]["until"].as_i64().unwrap() - 61);
        service.transport.put_record(&store, &key, notes.to_string().into()).await.unwrap();
        aged += 1;
    }
    assert_eq!(aged, 1);
    problem(service.get(issued["url"].as_str().unwrap()).send().await.unwrap(), 401, "unauthenticated").await;
}

#[test]
fn every_problem_of_auth_is_reported() {
    let jwt = "[auth.jwt.x]\nissuer = \"https://x\"\naudience = \"c\"\n";
    let secret = "secret = { env = \"S\" }\n";
    let cases = [
        ("[auth]\n".to_owned(), "accepts no credential"),
        ("[auth.key.a]\n".into(), "no value, or two"),
        (format!("[auth.key.a]\nsha256 = \"{KEY_SHA256}\"\nkey = {{ env = \"K\" }}\n"), "no value, or two"),
        ("[auth.key.a]\nsha256 = \"abc\"\n".into(), "64 hexadecimal digits"),
        ("[auth.key.a]\nkey = \"plain text\"\n".into(), "does not stand in the config"),
        ("[auth.key.a]\nkey = { path = \"x\" }\n".into(), "a secret has one place"),
        ("[auth.key.a]\nkey = { env = \"K\" }\ntenant = \"\"\n".into(), "tenant must be"),
        (format!("{jwt}algorithm = \"none\"\n{secret}tenant = \"t\"\n"), "use one of HS256"),
        (format!("{jwt}algorithm = \"RS256\"\n{secret}tenant = \"t\"\n"), "HS256 needs secret"),
        (format!("{jwt}algorithm = \"HS256\"\npublic_key = {{ env = \"S\" }}\ntenant = \"t\"\n"), "HS256 needs secret"),
        (format!("{jwt}algorithm = \"HS256\"\njwks = \"https://x/k\"\ntenant = \"t\"\n"), "HS256 needs secret"),
        (format!("{jwt}algorithm = \"RS256\"\njwks = \"http://x/k\"\ntenant = \"t\"\n"), "use an https:// URL"),
        (
            format!("{jwt}algorithm = \"RS256\"\njwks = \"http://127.0.0.1@x/k\"\ntenant = \"t\"\n"),
            "use an https:// URL",
        ),
        (format!("{jwt}algorithm = \"HS256\"\ntenant = \"t\"\n"), "no key, or several"),
        (format!("{jwt}algorithm = \"HS256\"\n{secret}"), "the tenant of its tokens"),
        (format!("{jwt}algorithm = \"HS256\"\n{secret}tenant = \"t\"\ntenant_claim = \"o\"\n"), "in exactly one way"),
        (format!("[auth.jwt.x]\nalgorithm = \"HS256\"\nissuer = \"i\"\n{secret}tenant = \"t\"\n"), "audience"),
        ("[auth]\nkeys = 1\n".into(), "keys"),
    ];
    for (config, expected) in cases {
        let (_, problems) = read_checked(&config);
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{config}: {problems:?}");
    }
    let (spec, problems) = read_checked("[service]\nlisten = \"0.0.0.0:80\"\n");
    assert!(problems.is_empty() && spec.exposure().is_some_and(|exposure| exposure.remedy.contains("insecure")));
    let (spec, _) = read_checked("[service]\nlisten = \"0.0.0.0:80\"\ninsecure = true\n");
    assert!(spec.exposure().is_none());
    let (spec, _) = read_checked("[service]\nlisten = \"0.0.0.0:80\"\n[auth.key.a]\nkey = { env = \"K\" }\n");
    assert!(spec.exposure().is_none());
}
