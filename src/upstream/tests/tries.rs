//! Which questions are asked more than once, and how often.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::fakes::Fake;
use super::*;
use crate::oci::TagsQuery;

/// A registry that answers the first questions with `first` and then as it should.
async fn recovering(first: Vec<Answer>) -> Fake {
    let asked = AtomicUsize::new(0);
    Fake::plain(move |seen| {
        let time = asked.fetch_add(1, Ordering::SeqCst);
        first.get(time).cloned().unwrap_or_else(|| index(seen))
    })
    .await
}

async fn get(registry: &Fake) -> Result<(), Error> {
    let upstream = World::new(&[&registry.url()]).upstream();
    let manifest = upstream.get_manifest(&repository(), &tag(), &call()).await;
    manifest.map(|manifest| assert_eq!(manifest.bytes, index_bytes()))
}

#[tokio::test(start_paused = true)]
async fn a_manifest_is_asked_for_again_when_the_registry_fails_or_the_connection_breaks() {
    for first in [
        vec![Answer::new(503, ""), Answer::new(502, "")],
        vec![Answer::new(504, ""), Answer::no_answer()],
        vec![Answer::no_answer(), Answer::no_answer()],
        vec![
            Answer::ok("{")
                .with("content-length", "100")
                .with("content-type", INDEX)
                .then_break(),
        ],
    ] {
        let times = first.len() + 1;
        let registry = recovering(first).await;
        assert_eq!(get(&registry).await, Ok(()));
        assert_eq!(registry.seen().len(), times);
    }
}

#[tokio::test(start_paused = true)]
async fn after_three_tries_the_failure_stands() {
    for answer in [Answer::new(503, ""), Answer::no_answer()] {
        let registry = Fake::plain(move |_| answer.clone()).await;
        let error = get(&registry).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(registry.seen().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn other_answers_are_not_asked_for_twice() {
    for status in [400, 403, 404, 429, 500] {
        let registry = Fake::plain(move |_| Answer::new(status, "")).await;
        assert!(get(&registry).await.is_err());
        assert_eq!(registry.seen().len(), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn heads_and_lists_are_asked_for_again_too() {
    let registry = recovering(vec![Answer::new(503, ""); 2]).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let head = upstream.head_manifest(&repository(), &tag(), &call()).await;
    assert!(head.is_ok(), "{head:?}");

    let registry = recovering(vec![Answer::no_answer(); 2]).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let head = upstream.head_blob(&repository(), &digest(), &call()).await;
    assert!(head.is_ok(), "{head:?}");

    let registry = recovering(vec![Answer::new(503, ""); 2]).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let query = TagsQuery::new(None, None);
    assert!(upstream.tags(&repository(), &query, &call()).await.is_ok());
    assert_eq!(registry.seen().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_asked_for_again() {
    let failed = AtomicUsize::new(0);
    let registry = Fake::plain(move |seen| {
        let host = seen.header("host").unwrap();
        match (seen.path(), seen.header("authorization")) {
            ("/token", _) => match failed.fetch_add(1, Ordering::SeqCst) {
                0 => Answer::new(503, ""),
                1 => Answer::no_answer(),
                _ => Answer::ok(r#"{"token":"t"}"#),
            },
            (_, Some("Bearer t")) => index(seen),
            _ => Answer::new(401, "").with(
                "www-authenticate",
                format!(r#"Bearer realm="http://{host}/token""#),
            ),
        }
    })
    .await;
    assert_eq!(get(&registry).await, Ok(()));
    assert_eq!(registry.seen().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_blob_is_asked_for_once_since_its_fetch_goes_on_by_itself() {
    let registry = Fake::plain(|_| Answer::new(503, "")).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    assert!(fetch(&upstream).await.is_err());
    assert_eq!(registry.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_kept_where_there_is_time_for_it() {
    for (asked, times, took) in [("7", 2, 7), ("60", 1, 0)] {
        let registry = recovering(vec![Answer::new(503, "").with("retry-after", asked)]).await;
        let began = Instant::now();
        assert_eq!(get(&registry).await.is_ok(), times == 2);
        assert_eq!(registry.seen().len(), times);
        assert_eq!(began.elapsed().as_secs(), took);
    }
}

#[tokio::test(start_paused = true)]
async fn every_url_is_asked_before_any_is_asked_again() {
    let first = recovering(vec![Answer::new(503, "")]).await;
    let closed = Fake::plain(|_| Answer::ok("")).await.url();
    let world = World::new(&[&first.url(), &closed]);
    let upstream = world.upstream();
    let manifest = upstream.get_manifest(&repository(), &tag(), &call()).await;
    assert!(manifest.is_ok(), "{manifest:?}");
    assert_eq!(first.seen().len(), 2);
    assert_eq!(
        world.network.opened().len(),
        2,
        "{:?}",
        world.network.opened()
    );
}
