//! Lists of tags and referrers.

use super::fakes::{Answer, Fake};
use super::*;
use crate::oci::{MediaType, TagsQuery};

#[tokio::test]
async fn a_page_of_tags_comes_with_the_query_of_the_next() {
    let registry = Fake::plain(|_| {
        Answer::ok(r#"{"name":"org/app","tags":["a","b"]}"#)
            .with("content-type", "application/json; charset=utf-8")
            .with(
                "link",
                r#"<https://r.example/v2/org/app/tags/list?n=2&last=b&ns=x>; rel="next""#,
            )
    })
    .await;
    let mut world = World::new(&[&registry.url()]);
    world.upstream.send_ns = true;
    let query = TagsQuery::new(Some(2), Some("a+b"));
    let page = world
        .upstream()
        .tags(&repository(), &query, &call())
        .await
        .unwrap();
    assert_eq!(page.body, r#"{"name":"org/app","tags":["a","b"]}"#);
    assert_eq!(page.media_type.as_str(), "application/json");
    let next = page.next.unwrap();
    assert!(
        next.contains("last=b") && next.contains("n=2") && !next.contains("ns="),
        "{next}"
    );
    let seen = &registry.seen()[0];
    assert_eq!(seen.path(), "/v2/org/app/tags/list");
    let asked = seen.uri.query().unwrap();
    assert!(
        asked.contains("n=2") && asked.contains("last=a%2Bb"),
        "{asked}"
    );
    assert!(asked.ends_with("&ns=registry.example"), "{asked}");
}

#[tokio::test]
async fn referrers_are_relayed_with_the_filters_that_were_applied() {
    let body = r#"{"schemaVersion":2,"manifests":[]}"#;
    let registry = Fake::plain(move |_| {
        Answer::ok(body)
            .with("content-type", MediaType::OCI_INDEX)
            .with("oci-filters-applied", "artifactType")
    })
    .await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let query = "artifactType=application%2Fx";
    let list = upstream
        .referrers(&repository(), &digest(), query, &call())
        .await
        .unwrap();
    assert_eq!(list.filters_applied.as_deref(), Some("artifactType"));
    assert_eq!(
        (list.media_type.as_str(), list.next),
        (MediaType::OCI_INDEX, None)
    );
    let seen = &registry.seen()[0];
    assert_eq!(
        seen.uri,
        format!("/v2/org/app/referrers/{}?{query}", digest()).as_str()
    );
    assert_eq!(seen.header("accept"), Some(MediaType::OCI_INDEX));
}

#[tokio::test]
async fn an_upstream_without_referrers_says_so() {
    let registry = Fake::plain(|_| Answer::new(404, "404 page not found")).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let result = upstream
        .referrers(&repository(), &digest(), "", &call())
        .await;
    assert!(matches!(result, Err(Error::NotFound { .. })), "{result:?}");
}

#[tokio::test]
async fn what_is_no_list_is_refused() {
    let answers = [
        Answer::ok("<html>").with("content-type", "text/html"),
        Answer::ok("<html>").with("content-type", "application/json"),
        Answer::ok("[").with("content-type", "application/json"),
        Answer::ok(vec![b' '; (16 << 20) + 1]).with("content-type", "application/json"),
    ];
    for answer in answers {
        let registry = Fake::plain(move |_| answer.clone()).await;
        let upstream = World::new(&[&registry.url()]).upstream();
        let result = upstream
            .tags(&repository(), &TagsQuery::new(None, None), &call())
            .await;
        assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
    }
}
