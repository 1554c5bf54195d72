//! Templates on the broker in memory.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::names::Token;
use crate::testing::MemoryTransport;

fn templates() -> Templates {
    Templates::new(Arc::new(MemoryTransport::default()))
}

async fn put(templates: &Templates, tenant: &str, name: &str, text: &str) -> Template {
    let fields = [format!("field_of_{text}")];
    let name = Token::new(name).unwrap();
    let bytes = Bytes::from(text.to_owned());
    templates.put(Some(tenant), &name, TemplateKind::Typst, fields, bytes).await.unwrap()
}

#[tokio::test]
async fn the_newest_version_is_first_and_the_same_bytes_are_the_same_version() {
    let templates = templates();
    let name = Token::new("letter").unwrap();
    let first = put(&templates, "a", "letter", "one").await;
    assert_eq!(put(&templates, "a", "letter", "one").await, first);
    let second = put(&templates, "a", "letter", "two").await;
    assert_eq!(second.versions.len(), 2);
    assert_eq!(second.versions[1], first.versions[0]);
    assert_eq!(second.fields, ["field_of_two"]);
    let back = put(&templates, "a", "letter", "one").await;
    assert_eq!((back.versions.len(), back.versions[0].sha256), (2, first.versions[0].sha256));
    let found = templates.find(Some("a"), &name).await.unwrap().unwrap();
    assert_eq!(templates.bytes(found.version(None).unwrap()).await.unwrap(), "one");
    let older = found.version(Some(second.versions[0].sha256)).unwrap();
    assert_eq!(templates.bytes(older).await.unwrap(), "two");
}

#[tokio::test]
async fn versions_are_bounded_and_what_goes_takes_its_body_along() {
    let transport = MemoryTransport::default();
    let templates = Templates::new(Arc::new(transport.clone()));
    for number in 0..MOST_VERSIONS + 3 {
        put(&templates, "a", "letter", &format!("text {number}")).await;
    }
    let name = Token::new("letter").unwrap();
    let found = templates.find(Some("a"), &name).await.unwrap().unwrap();
    assert_eq!(found.versions.len(), MOST_VERSIONS);
    assert_eq!(transport.claim_count(), MOST_VERSIONS);
    assert!(templates.remove(Some("a"), &name).await.unwrap());
    assert!(!templates.remove(Some("a"), &name).await.unwrap());
    assert_eq!(transport.claim_count(), 0);
    assert!(templates.find(Some("a"), &name).await.unwrap().is_none());
    put(&templates, "a", "letter", "again").await;
    assert_eq!(templates.list(Some("a")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_tenant_sees_its_own_alone() {
    let templates = templates();
    put(&templates, "a", "letter", "one").await;
    put(&templates, "b", "letter", "two").await;
    put(&templates, "a", "invoice", "three").await;
    let names = |list: Vec<TemplateSummary>| list.into_iter().map(|listed| listed.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(templates.list(Some("a")).await.unwrap()), ["invoice", "letter"]);
    assert_eq!(names(templates.list(Some("b")).await.unwrap()), ["letter"]);
    assert!(templates.list(None).await.unwrap().is_empty());
    templates.remove(Some("b"), &Token::new("letter").unwrap()).await.unwrap();
    assert!(templates.find(Some("a"), &Token::new("letter").unwrap()).await.unwrap().is_some());
}

#[tokio::test]
async fn templates_put_side_by_side_are_all_listed() {
    let templates = templates();
    let puts = (0..8).map(|number| {
        let templates = templates.clone();
        async move { put(&templates, "a", &format!("t{number}"), "text").await }
    });
    futures_util::future::join_all(puts).await;
    assert_eq!(templates.list(Some("a")).await.unwrap().len(), 8);
}
