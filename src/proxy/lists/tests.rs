use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::oci::MediaType;
use crate::proxy::testing::{
    MINUTE, SECOND, World, call, client, denied, digest, image, index, not_found, policy, turns,
    ubuntu, unavailable,
};
use crate::upstream;

async fn tags(world: &World) -> Result<ListAnswer, Error> {
    page(world, None, None).await
}

async fn page(world: &World, n: Option<u32>, last: Option<&str>) -> Result<ListAnswer, Error> {
    let query = TagsQuery::new(n, last);
    world.lists.tags(&ubuntu(), &query, &call()).await
}

async fn referrers(world: &World, types: &[&str]) -> Result<ListAnswer, Error> {
    let types: Vec<String> = types.iter().map(|&kind| kind.to_owned()).collect();
    let query = types.join("&");
    world
        .lists
        .referrers(&ubuntu(), &digest(&image("a")), &types, &query, &call())
        .await
}

fn publish(world: &World, body: &'static str) {
    *world.registry.list.lock() = Some(upstream::ListAnswer {
        body: Bytes::from_static(body.as_bytes()),
        media_type: MediaType::parse("application/json").unwrap(),
        next: Some("n=2&last=b".to_owned()),
        filters_applied: Some("artifactType".to_owned()),
    });
}

const BODY: &str = "{ \"name\":\"library/ubuntu\",\n\"tags\":[\"a\",\"b\"] }";

#[tokio::test]
async fn an_answer_is_passed_on_whole_and_kept_for_its_ttl() {
    let world = World::new();
    publish(&world, BODY);
    let cold = tags(&world).await.unwrap();
    assert_eq!(cold.outcome, CacheOutcome::Miss);
    let warm = tags(&world).await.unwrap();
    assert_eq!(warm.outcome, CacheOutcome::Hit);
    for answer in [cold, warm] {
        assert_eq!(answer.body, BODY.as_bytes());
        assert_eq!(answer.next.as_deref(), Some("n=2&last=b"));
        assert_eq!(answer.filters_applied.as_deref(), Some("artifactType"));
    }
    assert_eq!(world.registry.asked().len(), 1);
    world.clock.advance(MINUTE);
    assert_eq!(tags(&world).await.unwrap().outcome, CacheOutcome::Miss);
}

#[tokio::test]
async fn each_query_has_its_own_answer() {
    let world = World::new();
    publish(&world, BODY);
    tags(&world).await.unwrap();
    page(&world, Some(2), None).await.unwrap();
    page(&world, Some(2), Some("b")).await.unwrap();
    referrers(&world, &[]).await.unwrap();
    referrers(&world, &["sbom"]).await.unwrap();
    assert_eq!(world.registry.asked().len(), 5);
    world.settled().await;
    assert_eq!(world.records.lists(), 5);
}

#[tokio::test]
async fn requests_at_once_share_one_question() {
    let world = World::new();
    publish(&world, BODY);
    world.registry.hold();
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let lists = Arc::clone(&world.lists);
            client(async move { lists.tags(&ubuntu(), &TagsQuery::default(), &call()).await })
        })
        .collect();
    turns().await;
    world.registry.release();
    for client in clients {
        assert!(client.await.unwrap().is_ok());
    }
    assert_eq!(world.registry.asked().len(), 1);
}

#[tokio::test]
async fn a_list_is_served_stale_when_the_upstream_fails_also_after_a_restart() {
    let world = World::new();
    publish(&world, BODY);
    tags(&world).await.unwrap();
    world.settled().await;
    world.clock.advance(MINUTE);
    let failures = [
        (unavailable(), StaleReason::Unreachable),
        (denied(), StaleReason::Denied),
        (not_found(), StaleReason::Gone),
    ];
    for (error, reason) in failures {
        let world = world.restarted(&policy());
        world.registry.fail_all(&error);
        let answer = tags(&world).await.unwrap();
        assert_eq!(answer.outcome, CacheOutcome::Stale(reason));
        assert_eq!(answer.body, BODY.as_bytes());
        assert!(answer.warning.is_some());
        world.registry.asked();
        tags(&world).await.unwrap();
        assert!(world.registry.asked().is_empty(), "not repeated at once");
    }
}

#[tokio::test]
async fn past_its_window_nothing_stale_is_served() {
    let strict = TagPolicy {
        stale_if_error: Duration::ZERO,
        ..policy()
    };
    let world = World::with(&strict);
    publish(&world, BODY);
    tags(&world).await.unwrap();
    world.clock.advance(MINUTE);
    world.registry.fail_all(&unavailable());
    assert_eq!(tags(&world).await.unwrap_err().reason(), "unavailable");
}

#[tokio::test]
async fn a_list_that_was_taken_down_is_not_brought_back_by_an_outage_or_a_restart() {
    let strict = TagPolicy {
        stale_if_gone: Duration::ZERO,
        stale_if_denied: Duration::ZERO,
        ..policy()
    };
    for (taken_down, reason) in [(not_found(), "not_found"), (denied(), "denied")] {
        let world = World::with(&strict);
        publish(&world, BODY);
        tags(&world).await.unwrap();
        world.clock.advance(MINUTE);
        world.registry.fail_all(&taken_down);
        assert_eq!(tags(&world).await.unwrap_err().reason(), reason);
        world.settled().await;
        world.clock.advance(MINUTE);
        world.registry.fail_all(&unavailable());
        assert_eq!(tags(&world).await.unwrap_err().reason(), "unavailable");
        let world = world.restarted(&strict);
        world.registry.fail_all(&unavailable());
        assert_eq!(tags(&world).await.unwrap_err().reason(), "unavailable");

        let world = world.restarted(&policy());
        world.registry.fail_all(&unavailable());
        let answer = tags(&world).await.unwrap();
        let expected = if reason == "denied" {
            StaleReason::Denied
        } else {
            StaleReason::Gone
        };
        assert_eq!(answer.outcome, CacheOutcome::Stale(expected));

        let world = world.restarted(&strict);
        world.registry.mend();
        publish(&world, "{}");
        assert_eq!(tags(&world).await.unwrap().body, &b"{}"[..]);
        world.settled().await;
        world.clock.advance(MINUTE);
        world.registry.fail_all(&unavailable());
        assert_eq!(tags(&world).await.unwrap().body, &b"{}"[..], "it is back");
    }
}

#[tokio::test]
async fn the_stored_tags_are_no_list_in_place_of_one_that_was_taken_down() {
    let world = with_tags(&["a", "b"]).await;
    publish(&world, BODY);
    tags(&world).await.unwrap();
    world.settled().await;
    let strict = TagPolicy {
        stale_if_gone: Duration::ZERO,
        ..policy()
    };
    let world = world.restarted(&strict);
    world.clock.advance(MINUTE);
    world.registry.fail_all(&not_found());
    for _ in 0..2 {
        assert_eq!(tags(&world).await.unwrap_err().reason(), "not_found");
    }
}

#[tokio::test(start_paused = true)]
async fn a_take_down_that_is_told_late_is_kept_too() {
    let strict = TagPolicy {
        stale_if_gone: Duration::ZERO,
        ..policy()
    };
    let world = World::with(&strict);
    publish(&world, BODY);
    tags(&world).await.unwrap();
    world.clock.advance(MINUTE);
    world.registry.hold();
    assert_eq!(tags(&world).await.unwrap().body, BODY.as_bytes());
    world.registry.fail_all(&not_found());
    world.registry.release();
    world.settled().await;
    world.clock.advance(MINUTE);
    world.registry.fail_all(&unavailable());
    assert_eq!(tags(&world).await.unwrap_err().reason(), "unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_gets_a_stale_answer_and_its_late_one_is_kept() {
    let world = World::new();
    publish(&world, BODY);
    tags(&world).await.unwrap();
    world.clock.advance(MINUTE);
    publish(&world, "{}");
    world.registry.hold();
    let start = tokio::time::Instant::now();
    assert_eq!(tags(&world).await.unwrap().body, BODY.as_bytes());
    assert_eq!(start.elapsed(), 3 * SECOND);
    world.registry.release();
    world.settled().await;
    let answer = tags(&world).await.unwrap();
    assert_eq!(
        (answer.outcome, &*answer.body),
        (CacheOutcome::Hit, &b"{}"[..])
    );
}

#[tokio::test]
async fn within_stale_while_revalidate_the_answer_comes_first() {
    let patient = TagPolicy {
        stale_while_revalidate: MINUTE,
        ..policy()
    };
    let world = World::with(&patient);
    publish(&world, BODY);
    tags(&world).await.unwrap();
    publish(&world, "{}");
    world.clock.advance(MINUTE);
    let behind = CacheOutcome::Stale(StaleReason::Revalidating);
    assert_eq!(tags(&world).await.unwrap().outcome, behind);
    world.settled().await;
    assert_eq!(tags(&world).await.unwrap().body, &b"{}"[..]);
}

#[tokio::test]
async fn a_404_on_referrers_is_relayed_and_believed_briefly() {
    let world = World::new();
    for _ in 0..2 {
        let failure = referrers(&world, &[]).await.unwrap_err();
        assert!(matches!(
            failure,
            Error::NotFound {
                what: What::Referrers,
                ..
            }
        ));
    }
    assert_eq!(world.registry.asked().len(), 1);
    publish(&world, BODY);
    world.clock.advance(10 * SECOND);
    assert!(referrers(&world, &[]).await.is_ok());
}

#[tokio::test]
async fn an_upstream_without_referrers_is_a_404_however_it_says_so() {
    let invalid = upstream::Error::Invalid {
        message: "405 Method Not Allowed".to_owned(),
    };
    let world = World::new();
    world.registry.fail_all(&invalid);
    for _ in 0..2 {
        let failure = referrers(&world, &[]).await.unwrap_err();
        assert_eq!(failure.reason(), "not_found");
    }
    assert_eq!(world.registry.asked().len(), 1, "believed briefly");

    let strict = TagPolicy {
        stale_if_error: Duration::ZERO,
        ..policy()
    };
    let world = World::with(&strict);
    publish(&world, BODY);
    referrers(&world, &[]).await.unwrap();
    world.clock.advance(MINUTE);
    world.registry.fail_all(&invalid);
    let failure = referrers(&world, &[]).await.unwrap_err();
    assert_eq!(
        failure.reason(),
        "not_found",
        "a failure and not gone, but too old to serve"
    );
}

#[test]
fn a_repository_has_a_bounded_number_of_records_whatever_is_asked() {
    let records: std::collections::HashSet<_> = (0..5_000)
        .map(|n| {
            let wanted = Wanted::Tags(TagsQuery::new(Some(n), None));
            let question = Digest::sha256(wanted.canonical().as_bytes());
            let place = ubuntu();
            ListKey { place, question }.record()
        })
        .collect();
    assert!(records.len() > 250 && records.len() <= 256);
}

#[tokio::test]
async fn questions_that_meet_in_one_record_get_no_answer_of_the_other() {
    let world = World::new();
    publish(&world, BODY);
    tags(&world).await.unwrap();
    world.settled().await;
    let wanted = Wanted::Tags(TagsQuery::new(Some(7), None));
    let all = Digest::sha256(b"tags?");
    let other = Digest::sha256(wanted.canonical().as_bytes());
    let [all, other] = [all, other].map(|question| {
        let place = ubuntu();
        ListKey { place, question }.record()
    });
    let record = world.records.stored(&all).unwrap();
    world.records.seed(&other, record.as_bytes());
    let world = world.restarted(&policy());
    publish(&world, "{}");
    assert_eq!(page(&world, Some(7), None).await.unwrap().body, &b"{}"[..]);
}

#[tokio::test]
async fn a_list_that_is_very_long_is_passed_on_and_not_stored() {
    let world = World::new();
    let body = format!("\"{}\"", "x".repeat(1 << 20));
    publish(&world, Box::leak(body.into_boxed_str()));
    assert!(tags(&world).await.is_ok());
    world.settled().await;
    assert_eq!(world.records.lists(), 0);
}

// ---- built from what is stored

/// An instance that has pulled these tags.
async fn with_tags(names: &[&str]) -> World {
    let world = World::new();
    for name in names {
        world.registry.push(&ubuntu(), name, &image(name));
        let tag = name.parse().unwrap();
        world.tags.manifest(&ubuntu(), &tag, &call()).await.unwrap();
    }
    world.settled().await;
    world.registry.asked();
    world
}

fn names(answer: &ListAnswer) -> Vec<String> {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["name"], "library/ubuntu");
    serde_json::from_value(body["tags"].clone()).unwrap()
}

#[tokio::test]
async fn offline_the_stored_tags_are_listed_in_order_page_by_page() {
    let world = with_tags(&["beta", "1.0", "Alpha", "alpha"]).await;
    let world = world.restarted_offline();
    let all = tags(&world).await.unwrap();
    assert_eq!(names(&all), ["1.0", "Alpha", "alpha", "beta"]);
    assert_eq!(all.next, None);
    let first = page(&world, Some(3), None).await.unwrap();
    assert_eq!(names(&first), ["1.0", "Alpha", "alpha"]);
    assert_eq!(first.next.as_deref(), Some("last=alpha&n=3"));
    let second = page(&world, Some(3), Some("alpha")).await.unwrap();
    assert_eq!(names(&second), ["beta"]);
    assert_eq!(second.next, None);
    assert!(world.registry.asked().is_empty());
}

#[tokio::test]
async fn a_page_of_no_tags_has_no_next_one() {
    let world = with_tags(&["a", "b"]).await.restarted_offline();
    let none = page(&world, Some(0), None).await.unwrap();
    assert_eq!(names(&none), Vec::<String>::new());
    assert_eq!(none.next, None);
}

#[tokio::test]
async fn offline_with_nothing_stored_there_is_no_list() {
    let world = World::new().restarted_offline();
    let failure = tags(&world).await.unwrap_err();
    assert!(matches!(failure, Error::NotCached { what: What::Tags }));
    let failure = referrers(&world, &[]).await.unwrap_err();
    assert!(matches!(
        failure,
        Error::NotCached {
            what: What::Referrers
        }
    ));
}

#[tokio::test]
async fn offline_referrers_are_what_the_upstream_last_said() {
    let world = World::new();
    publish(&world, BODY);
    referrers(&world, &[]).await.unwrap();
    world.settled().await;
    world.clock.advance(365 * 24 * 60 * MINUTE);
    let world = world.restarted_offline();
    let answer = referrers(&world, &[]).await.unwrap();
    assert_eq!(answer.outcome, CacheOutcome::Stale(StaleReason::Offline));
    assert_eq!(answer.body, BODY.as_bytes());
}

#[tokio::test]
async fn an_upstream_without_tag_lists_has_one_of_what_is_stored() {
    let world = with_tags(&["a", "b"]).await;
    assert_eq!(names(&tags(&world).await.unwrap()), ["a", "b"]);
    assert!(tags(&world).await.unwrap().warning.is_some());
    world.registry.fail_all(&unavailable());
    world.clock.advance(10 * SECOND);
    let failure = tags(&world).await.unwrap_err();
    assert_eq!(
        failure.reason(),
        "unavailable",
        "one that is away may have more"
    );
}

/// A manifest that refers to the image `a`.
fn sbom(kind: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"{kind}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{}","size":2}},"layers":[],"subject":{{"mediaType":"{}","digest":"{}","size":1}},"annotations":{{"org.example.kind":"{kind}"}}}}"#,
        MediaType::OCI_MANIFEST,
        Digest::sha256(b"{}"),
        MediaType::OCI_MANIFEST,
        digest(&image("a")),
    )
}

#[tokio::test]
async fn offline_referrers_are_found_among_the_stored_manifests() {
    let world = World::new();
    let (spdx, signature) = (sbom("application/spdx"), sbom("application/signature"));
    let stored = [&image("a"), &index(&[&image("a")]), &spdx, &signature];
    for body in stored {
        let digest = world.registry.push_untagged(&ubuntu(), body);
        let manifests = &world.manifests;
        manifests
            .by_digest(&ubuntu(), &digest, &call())
            .await
            .unwrap();
    }
    world.settled().await;
    let world = world.restarted_offline();
    let all = referrers(&world, &[]).await.unwrap();
    assert_eq!(all.media_type.as_str(), MediaType::OCI_INDEX);
    assert_eq!(all.filters_applied, None);
    let body: serde_json::Value = serde_json::from_slice(&all.body).unwrap();
    assert_eq!(body["schemaVersion"], 2);
    assert_eq!(body["mediaType"], MediaType::OCI_INDEX);
    assert_eq!(body["manifests"].as_array().unwrap().len(), 2);

    let some = referrers(&world, &["application/spdx"]).await.unwrap();
    assert_eq!(some.filters_applied.as_deref(), Some("artifactType"));
    let body: serde_json::Value = serde_json::from_slice(&some.body).unwrap();
    let expected = serde_json::json!([{
        "mediaType": MediaType::OCI_MANIFEST,
        "digest": digest(&spdx),
        "size": spdx.len(),
        "artifactType": "application/spdx",
        "annotations": { "org.example.kind": "application/spdx" },
    }]);
    assert_eq!(body["manifests"], expected);
}
