//! The console: a page at `/` that draws the flows as channels and has a form to try each route, and one at
//! `/console/api` that draws `/openapi.json`.
//!
//! Its files are compiled into the binary, need no build step and load nothing from other hosts. Every answer has a
//! Content-Security-Policy that forbids inline scripts and other origins, `no-cache`, and an `ETag` (the first 128 bits
//! of the content's SHA-256), so that a page left open over an upgrade revalidates and gets 304 if nothing changed. The
//! first page polls `GET /v1/flows` once a second while it is visible, and no other route.

use std::fmt::Write;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

/// The page may use its own scripts and styles, its own origin's data, and images that it made itself (`blob:`,
/// `data:`).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// One file of the console.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

/// Every file of the console, by the path it is served at.
const ASSETS: &[Asset] = &[
    Asset { path: "/", content_type: HTML, body: include_str!("assets/index.html") },
    Asset { path: "/console/api", content_type: HTML, body: include_str!("assets/reference.html") },
    Asset { path: "/console/icon.svg", content_type: SVG, body: include_str!("assets/icon.svg") },
    Asset { path: "/console/console.css", content_type: CSS, body: include_str!("assets/console.css") },
    Asset { path: "/console/panes.css", content_type: CSS, body: include_str!("assets/panes.css") },
    Asset { path: "/console/reference.css", content_type: CSS, body: include_str!("assets/reference.css") },
    Asset { path: "/console/reference.js", content_type: SCRIPT, body: include_str!("assets/reference.js") },
    Asset { path: "/console/console.js", content_type: SCRIPT, body: include_str!("assets/console.js") },
    Asset { path: "/console/api.js", content_type: SCRIPT, body: include_str!("assets/api.js") },
    Asset { path: "/console/key.js", content_type: SCRIPT, body: include_str!("assets/key.js") },
    Asset { path: "/console/dom.js", content_type: SCRIPT, body: include_str!("assets/dom.js") },
    Asset { path: "/console/rates.js", content_type: SCRIPT, body: include_str!("assets/rates.js") },
    Asset { path: "/console/channel.js", content_type: SCRIPT, body: include_str!("assets/channel.js") },
    Asset { path: "/console/panes/photos.js", content_type: SCRIPT, body: include_str!("assets/panes/photos.js") },
    Asset { path: "/console/panes/open.js", content_type: SCRIPT, body: include_str!("assets/panes/open.js") },
];

/// The routes of the console: `GET` and `HEAD` of `/` and of its files under `/console/`.
///
/// They hold no state and need no credential: they serve the same to everybody, and the data that the page shows comes
/// from routes that authenticate.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new();
    for asset in ASSETS {
        let tag = entity_tag(asset.body);
        router = router.route(asset.path, get(move |headers: HeaderMap| async move { answer(asset, &tag, &headers) }));
    }
    router
}

/// The file, or 304 if the client has this version of it.
fn answer(asset: &Asset, tag: &HeaderValue, request: &HeaderMap) -> Response {
    let headers: [(HeaderName, HeaderValue); 6] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type)),
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    if holds(request, tag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, Body::from(asset.body)).into_response()
}

/// Whether `If-None-Match` names this version. Weak comparison, as RFC 9110 section 13.1.2 asks for.
fn holds(request: &HeaderMap, tag: &HeaderValue) -> bool {
    let (Some(held), Ok(tag)) = (request.get(header::IF_NONE_MATCH), tag.to_str()) else { return false };
    let Ok(held) = held.to_str() else { return false };
    held.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// A strong entity tag: 32 hexadecimal digits of the content's SHA-256, in quotes.
fn entity_tag(body: &str) -> HeaderValue {
    let mut tag = String::from("\"");
    for byte in &Sha256::digest(body.as_bytes())[..16] {
        write!(tag, "{byte:02x}").expect("writing to a string does not fail");
    }
    tag.push('"');
    HeaderValue::try_from(tag).expect("hexadecimal digits and quotes are header text")
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::Service;

    use super::*;

    async fn fetch(path: &str, held: Option<&HeaderValue>) -> Response {
        let mut request = Request::builder().uri(path);
        if let Some(tag) = held {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        routes::<()>().call(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn every_file_is_served_with_its_policy_and_not_sent_twice() {
        for asset in ASSETS {
            let first = fetch(asset.path, None).await;
            assert_eq!(first.status(), StatusCode::OK, "{}", asset.path);
            assert_eq!(first.headers()[header::CONTENT_TYPE], asset.content_type, "{}", asset.path);
            assert_eq!(first.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
            assert_eq!(first.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            let tag = first.headers()[header::ETAG].clone();
            assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), asset.body.as_bytes());

            let again = fetch(asset.path, Some(&tag)).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{}", asset.path);
            assert!(again.into_body().collect().await.unwrap().to_bytes().is_empty());
        }
    }

    #[tokio::test]
    async fn an_older_version_is_replaced() {
        let stale = HeaderValue::from_static("\"00000000000000000000000000000000\"");
        assert_eq!(fetch("/", Some(&stale)).await.status(), StatusCode::OK);
        assert_eq!(fetch("/console/nothing.js", None).await.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn no_file_names_another_host_or_writes_markup_from_data() {
        for asset in ASSETS {
            let text = asset.body.replace("http://www.w3.org/2000/svg", "");
            for banned in ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "style=\""] {
                assert!(!text.contains(banned), "{} contains {banned}", asset.path);
            }
        }
    }

    #[test]
    fn every_import_and_link_is_served() {
        for asset in ASSETS {
            for quoted in asset.body.split('"') {
                let served = if quoted.starts_with("/console/") {
                    ASSETS.iter().any(|other| other.path == quoted)
                } else if quoted.starts_with("./") || quoted.starts_with("../") {
                    let name = quoted.trim_start_matches('.');
                    ASSETS.iter().any(|other| other.path.ends_with(name))
                } else {
                    continue;
                };
                assert!(served, "{} names {quoted}", asset.path);
            }
        }
    }
}
