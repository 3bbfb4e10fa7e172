use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::flight::ports::RefKindName;
use crate::oci::{Digest, Reference};
use crate::proxy::testing::{
    MINUTE, SECOND, World, call, client, denied, digest, image, not_found, policy, rate_limited,
    turns, ubuntu, unavailable,
};
use crate::upstream;

fn latest() -> Tag {
    "latest".parse().unwrap()
}

async fn pull(world: &World) -> Result<ManifestAnswer, Error> {
    world.tags.manifest(&ubuntu(), &latest(), &call()).await
}

/// Pulls, and says what came and how.
async fn pulled(world: &World) -> (Digest, CacheOutcome) {
    let answer = pull(world).await.unwrap();
    assert_eq!(Digest::sha256(&answer.bytes), answer.digest);
    (answer.digest, answer.outcome)
}

/// An instance that has pulled the image `a`, all of it on disk.
async fn warm(policy: &TagPolicy) -> World {
    let world = World::with(policy);
    world.registry.push(&ubuntu(), "latest", &image("a"));
    pull(&world).await.unwrap();
    world.settled().await;
    world.registry.asked();
    world.records.written();
    world
}

/// The same, with the tag past its time.
async fn old() -> World {
    let world = warm(&policy()).await;
    world.clock.advance(MINUTE);
    world
}

fn always_asked() -> TagPolicy {
    TagPolicy {
        ttl: Duration::ZERO,
        ..policy()
    }
}

fn record(world: &World) -> Option<TagRecord> {
    let key = ubuntu().key(RefKind::Tag(latest()));
    let record = world.records.stored(&key)?;
    Some(serde_json::from_str(&record).unwrap())
}

const HEAD: &str = "HEAD latest";
const GET: &str = "GET latest";

fn get(body: &str) -> String {
    format!("GET {}", digest(body))
}

fn by_digest(body: &str) -> Reference {
    Reference::Digest(digest(body))
}

// ---- new tags

#[tokio::test]
async fn a_new_tag_costs_one_get_and_a_fresh_one_nothing() {
    let world = World::new();
    let digest = world.registry.push(&ubuntu(), "latest", &image("a"));
    assert_eq!(pulled(&world).await, (digest.clone(), CacheOutcome::Miss));
    world.clock.advance(59 * SECOND);
    assert_eq!(pulled(&world).await, (digest.clone(), CacheOutcome::Hit));
    let manifests = &world.manifests;
    let answer = manifests.by_digest(&ubuntu(), &digest, &call()).await;
    assert_eq!(answer.unwrap().outcome, CacheOutcome::Hit);
    assert_eq!(world.registry.asked(), [GET]);
}

#[tokio::test]
async fn the_record_of_a_tag_comes_after_its_manifest() {
    let world = World::new();
    world.registry.push(&ubuntu(), "latest", &image("a"));
    pull(&world).await.unwrap();
    world.settled().await;
    assert_eq!(world.records.written(), ["blob", "manifest", "tag"]);
}

#[tokio::test]
async fn a_tag_whose_manifest_cannot_be_stored_is_not_recorded_but_served() {
    let world = World::new();
    world.records.is_full.store(true, Ordering::Relaxed);
    world.registry.push(&ubuntu(), "latest", &image("a"));
    assert!(pull(&world).await.is_ok());
    world.settled().await;
    assert_eq!(record(&world), None);
    assert_eq!(pulled(&world).await.1, CacheOutcome::Hit);
}

#[tokio::test]
async fn requests_at_once_share_one_get() {
    let world = World::new();
    world.registry.push(&ubuntu(), "latest", &image("a"));
    world.registry.hold();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let tags = Arc::clone(&world.tags);
            client(async move { tags.manifest(&ubuntu(), &latest(), &call()).await })
        })
        .collect();
    turns().await;
    world.registry.release();
    let mut collapsed = 0;
    for client in clients {
        let outcome = client.await.unwrap().unwrap().outcome;
        collapsed += usize::from(outcome == CacheOutcome::Collapsed);
    }
    assert_eq!(collapsed, 19);
    assert_eq!(world.registry.asked(), [GET]);
}

#[tokio::test]
async fn a_client_that_leaves_strands_nobody() {
    let world = World::new();
    world.registry.push(&ubuntu(), "latest", &image("a"));
    world.registry.hold();
    let ask = || {
        let tags = Arc::clone(&world.tags);
        client(async move { tags.manifest(&ubuntu(), &latest(), &call()).await })
    };
    let first = ask();
    turns().await;
    let second = ask();
    turns().await;
    first.abort();
    turns().await;
    world.registry.release();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(world.registry.asked(), [GET]);
}

#[tokio::test]
async fn an_absent_tag_is_asked_for_once_in_negative_ttl_and_served_as_soon_as_it_is_there() {
    let world = World::new();
    for _ in 0..3 {
        let failure = pull(&world).await.unwrap_err();
        assert!(matches!(failure, Error::NotFound { .. }));
        world.clock.advance(3 * SECOND);
    }
    assert_eq!(world.registry.asked(), [GET]);
    world.registry.push(&ubuntu(), "latest", &image("a"));
    world.clock.advance(SECOND);
    assert_eq!(pulled(&world).await.1, CacheOutcome::Miss);
}

#[tokio::test]
async fn a_refusal_of_a_new_tag_is_never_remembered() {
    for error in [unavailable(), denied(), rate_limited()] {
        let world = World::new();
        world.registry.fail_all(&error);
        assert_eq!(pull(&world).await.unwrap_err().reason(), error.reason());
        world.settled().await;
        assert_eq!(world.records.len(), 0);
        world.registry.mend();
        world.registry.push(&ubuntu(), "latest", &image("a"));
        assert!(pull(&world).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_tag_is_waited_for_longer_than_revalidate_timeout() {
    let world = World::new();
    world.registry.push(&ubuntu(), "latest", &image("a"));
    world.registry.hold();
    let tags = Arc::clone(&world.tags);
    let waiting = client(async move { tags.manifest(&ubuntu(), &latest(), &call()).await });
    tokio::time::advance(10 * SECOND).await;
    world.registry.release();
    assert!(waiting.await.unwrap().is_ok());
}

// ---- restarts

#[tokio::test]
async fn a_restart_forgets_no_tag() {
    let world = warm(&policy()).await;
    let world = world.restarted(&policy());
    world.registry.fail_all(&unavailable());
    let fresh = pulled(&world).await;
    assert_eq!(fresh, (digest(&image("a")), CacheOutcome::Hit));
    assert!(world.registry.asked().is_empty());
    world.clock.advance(30 * 24 * 60 * MINUTE);
    let world = world.restarted(&policy());
    let stale = CacheOutcome::Stale(StaleReason::Unreachable);
    assert_eq!(pulled(&world).await, (digest(&image("a")), stale));
}

#[tokio::test]
async fn a_damaged_record_is_a_new_tag() {
    let world = warm(&policy()).await;
    let key = ubuntu().key(RefKind::Tag(latest()));
    world.records.seed(&key, b"{\"digest\":\"sha2");
    let world = world.restarted(&policy());
    assert_eq!(pulled(&world).await.1, CacheOutcome::Miss);
    world.settled().await;
    assert!(record(&world).is_some());
}

#[tokio::test]
async fn a_tag_whose_manifest_is_gone_from_disk_fetches_it_by_digest() {
    let world = warm(&policy()).await;
    world.records.blobs.lock().clear();
    let world = world.restarted(&policy());
    assert_eq!(
        pulled(&world).await,
        (digest(&image("a")), CacheOutcome::Miss)
    );
    assert_eq!(world.registry.asked(), [HEAD, &get(&image("a"))]);
}

#[tokio::test]
async fn a_clock_that_was_set_back_breaks_nothing() {
    let world = World::new();
    world.clock.advance(365 * 24 * 60 * MINUTE);
    world.registry.push(&ubuntu(), "latest", &image("a"));
    pull(&world).await.unwrap();
    world.settled().await;
    world.registry.asked();
    let world = world.restarted_in_the_past();
    world.registry.fail_all(&unavailable());
    let stale = CacheOutcome::Stale(StaleReason::Unreachable);
    assert_eq!(pulled(&world).await.1, stale);
    world.registry.mend();
    world.clock.advance(10 * SECOND);
    assert_eq!(pulled(&world).await.1, CacheOutcome::Revalidated);
    assert_eq!(pulled(&world).await.1, CacheOutcome::Hit);
}

// ---- revalidation

#[tokio::test]
async fn an_old_tag_costs_one_head_and_is_fresh_again() {
    let world = old().await;
    assert_eq!(pulled(&world).await.1, CacheOutcome::Revalidated);
    world.clock.advance(59 * SECOND);
    assert_eq!(pulled(&world).await.1, CacheOutcome::Hit);
    assert_eq!(world.registry.asked(), [HEAD]);
    world.settled().await;
    let record = record(&world).unwrap();
    assert!(record.validated > record.fetched);
}

#[tokio::test]
async fn a_ttl_of_zero_is_a_head_at_every_use() {
    let world = warm(&always_asked()).await;
    for _ in 0..3 {
        assert_eq!(pulled(&world).await.1, CacheOutcome::Revalidated);
    }
    assert_eq!(world.registry.asked(), [HEAD, HEAD, HEAD]);
}

#[tokio::test]
async fn validations_that_say_nothing_new_do_not_wear_out_the_disk() {
    let world = warm(&always_asked()).await;
    for _ in 0..10 {
        pull(&world).await.unwrap();
        world.settled().await;
    }
    assert!(world.records.written().is_empty());
    world.clock.advance(5 * SECOND);
    pull(&world).await.unwrap();
    world.settled().await;
    assert_eq!(world.records.written(), ["tag"]);
}

#[tokio::test]
async fn requests_at_once_share_one_head() {
    let world = old().await;
    world.registry.hold();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let tags = Arc::clone(&world.tags);
            client(async move { tags.manifest(&ubuntu(), &latest(), &call()).await })
        })
        .collect();
    turns().await;
    world.registry.release();
    for client in clients {
        let outcome = client.await.unwrap().unwrap().outcome;
        assert_eq!(outcome, CacheOutcome::Revalidated);
    }
    assert_eq!(world.registry.asked(), [HEAD]);
}

#[tokio::test]
async fn a_moved_tag_costs_a_head_and_a_get_by_digest() {
    let world = old().await;
    let new = world.registry.push(&ubuntu(), "latest", &image("b"));
    assert_eq!(pulled(&world).await, (new.clone(), CacheOutcome::Miss));
    assert_eq!(world.registry.asked(), [HEAD, &get(&image("b"))]);
    world.settled().await;
    assert_eq!(record(&world).unwrap().digest, new);
}

#[tokio::test]
async fn a_tag_that_moves_to_a_stored_manifest_costs_a_head() {
    let world = old().await;
    world.registry.push(&ubuntu(), "latest", &image("b"));
    pull(&world).await.unwrap();
    world.registry.asked();
    let first = world.registry.push(&ubuntu(), "latest", &image("a"));
    world.clock.advance(MINUTE);
    assert_eq!(pulled(&world).await, (first, CacheOutcome::Revalidated));
    assert_eq!(world.registry.asked(), [HEAD]);
}

#[tokio::test]
async fn an_upstream_that_gives_manifests_by_tag_only_is_asked_by_tag() {
    let world = old().await;
    let new = world.registry.push(&ubuntu(), "latest", &image("b"));
    world.registry.remove(&ubuntu(), by_digest(&image("b")));
    assert_eq!(pulled(&world).await, (new, CacheOutcome::Miss));
    assert_eq!(world.registry.asked(), [HEAD, &get(&image("b")), GET]);
}

#[tokio::test]
async fn a_head_that_had_to_bring_the_manifest_costs_no_get() {
    let world = old().await;
    world.registry.head_has_body.store(true, Ordering::Relaxed);
    assert_eq!(pulled(&world).await.1, CacheOutcome::Revalidated);
    let new = world.registry.push(&ubuntu(), "latest", &image("b"));
    world.clock.advance(MINUTE);
    assert_eq!(pulled(&world).await, (new, CacheOutcome::Miss));
    assert_eq!(world.registry.asked(), [HEAD, HEAD]);
}

#[tokio::test]
async fn a_moved_tag_whose_manifest_cannot_be_had_stays_where_it_was() {
    let world = old().await;
    world.registry.push(&ubuntu(), "latest", &image("b"));
    world.registry.fail("GET", &unavailable());
    let stale = CacheOutcome::Stale(StaleReason::Unreachable);
    assert_eq!(pulled(&world).await, (digest(&image("a")), stale));
    world.settled().await;
    assert_eq!(record(&world).unwrap().digest, digest(&image("a")));
}

#[tokio::test]
async fn of_two_moves_the_disk_keeps_the_newest_however_slow_it_is() {
    let world = warm(&always_asked()).await;
    world.records.hold();
    for name in ["b", "c", "d"] {
        world.registry.push(&ubuntu(), "latest", &image(name));
        assert_eq!(pulled(&world).await.1, CacheOutcome::Miss);
        turns().await;
    }
    world.records.release();
    world.settled().await;
    assert_eq!(record(&world).unwrap().digest, digest(&image("d")));
    assert_eq!(world.records.count(RefKindName::Manifest), 4);
}

// ---- stale answers

fn failures() -> [(upstream::Error, StaleReason); 4] {
    [
        (unavailable(), StaleReason::Unreachable),
        (rate_limited(), StaleReason::RateLimited),
        (denied(), StaleReason::Denied),
        (not_found(), StaleReason::Gone),
    ]
}

#[tokio::test]
async fn what_is_stored_is_served_and_said_to_be_stale_when_the_upstream_fails() {
    for (error, reason) in failures() {
        let world = old().await;
        world.registry.fail_all(&error);
        let answer = pull(&world).await.unwrap();
        assert_eq!(answer.outcome, CacheOutcome::Stale(reason));
        assert_eq!(answer.bytes, image("a").as_bytes());
        let warning = format!("served stale: {}", reason.as_str());
        assert_eq!(answer.warning, Some(warning));
        let counted = format!(
            r#"stale_served_total{{upstream="docker.io",reason="{}"}} 1"#,
            reason.as_str()
        );
        assert!(world.ctx.metrics.render().contains(&counted));
    }
}

#[tokio::test]
async fn a_failed_revalidation_is_not_repeated_for_negative_ttl() {
    for (error, reason) in failures() {
        let world = old().await;
        world.registry.fail_all(&error);
        for _ in 0..5 {
            assert_eq!(pulled(&world).await.1, CacheOutcome::Stale(reason));
        }
        assert_eq!(world.registry.asked(), [HEAD]);
        world.registry.mend();
        world.clock.advance(10 * SECOND);
        assert_eq!(pulled(&world).await.1, CacheOutcome::Revalidated);
    }
}

#[tokio::test]
async fn past_its_window_nothing_stale_is_served() {
    let strict = TagPolicy {
        stale_if_error: Duration::ZERO,
        stale_if_gone: Duration::ZERO,
        stale_if_denied: Duration::ZERO,
        ..policy()
    };
    for (error, _) in failures() {
        let world = warm(&strict).await;
        world.clock.advance(MINUTE);
        world.registry.fail_all(&error);
        assert_eq!(pull(&world).await.unwrap_err().reason(), error.reason());
        assert!(record(&world).is_some(), "nothing is thrown away");
    }
}

#[tokio::test]
async fn a_tag_that_is_gone_and_may_not_be_served_is_believed_gone_for_negative_ttl() {
    let strict = TagPolicy {
        stale_if_gone: Duration::ZERO,
        ..policy()
    };
    let world = warm(&strict).await;
    world.clock.advance(MINUTE);
    world.registry.fail_all(&not_found());
    for _ in 0..3 {
        assert!(matches!(pull(&world).await, Err(Error::NotFound { .. })));
    }
    assert_eq!(world.registry.asked(), [HEAD]);
    world.registry.mend();
    world.clock.advance(10 * SECOND);
    assert!(pull(&world).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_too_slow_gets_a_stale_answer_after_revalidate_timeout() {
    let world = old().await;
    world.registry.hold();
    let start = tokio::time::Instant::now();
    let stale = CacheOutcome::Stale(StaleReason::Unreachable);
    assert_eq!(pulled(&world).await.1, stale);
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert_eq!(pulled(&world).await.1, stale);
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert_eq!(world.registry.asked(), [HEAD]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_for_its_client_still_moves_the_tag() {
    let world = old().await;
    world.registry.hold();
    pull(&world).await.unwrap();
    let new = world.registry.push(&ubuntu(), "latest", &image("b"));
    world.registry.release();
    world.settled().await;
    assert_eq!(pulled(&world).await, (new, CacheOutcome::Hit));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_undo_a_newer_one() {
    let world = old().await;
    world.registry.hold();
    pull(&world).await.unwrap();
    let key = TagKey {
        place: ubuntu(),
        tag: latest(),
    };
    let before = world.tags.known(&key).await.unwrap();
    let moved = TagRecord {
        digest: digest(&image("b")),
        ..before.record.clone()
    };
    let moved = Arc::new(Entry::from_disk(moved));
    world.tags.hot.insert(key.clone(), moved);
    world.registry.release();
    world.settled().await;
    let after = world.tags.known(&key).await.unwrap();
    assert_eq!(after.record.digest, digest(&image("b")));
}

#[tokio::test]
async fn within_stale_while_revalidate_the_answer_comes_first_and_the_question_after() {
    let patient = TagPolicy {
        stale_while_revalidate: MINUTE,
        ..policy()
    };
    let world = warm(&patient).await;
    let new = world.registry.push(&ubuntu(), "latest", &image("b"));
    world.clock.advance(MINUTE);
    world.registry.hold();
    let behind = CacheOutcome::Stale(StaleReason::Revalidating);
    for _ in 0..3 {
        assert_eq!(pulled(&world).await, (digest(&image("a")), behind));
    }
    world.registry.release();
    world.settled().await;
    assert_eq!(world.registry.asked(), [HEAD, &get(&image("b"))]);
    assert_eq!(pulled(&world).await, (new, CacheOutcome::Hit));
}

// ---- offline

#[tokio::test]
async fn offline_nothing_expires_and_nothing_is_asked() {
    let world = warm(&policy()).await;
    let world = world.restarted_offline();
    assert_eq!(pulled(&world).await.1, CacheOutcome::Hit);
    world.clock.advance(365 * 24 * 60 * MINUTE);
    let stale = CacheOutcome::Stale(StaleReason::Offline);
    assert_eq!(pulled(&world).await, (digest(&image("a")), stale));
    let missing = world
        .tags
        .manifest(&ubuntu(), &"other".parse().unwrap(), &call())
        .await;
    assert!(matches!(missing, Err(Error::NotCached { .. })));
    assert!(world.registry.asked().is_empty());
}

// ---- the previous manifest

/// An instance whose tag has moved from `a`, whole or not, to `b`.
async fn moved(is_whole: bool) -> World {
    let world = old().await;
    if is_whole {
        world.store_blobs_of(&ubuntu(), "a");
    }
    world.registry.push(&ubuntu(), "latest", &image("b"));
    assert_eq!(pulled(&world).await.0, digest(&image("b")));
    world.settled().await;
    world.clock.advance(MINUTE);
    world
}

#[tokio::test]
async fn when_the_upstream_fails_the_newest_whole_image_is_served() {
    let world = moved(true).await;
    world.registry.fail_all(&unavailable());
    assert_eq!(pulled(&world).await.0, digest(&image("a")));
    let world = world.restarted(&policy());
    assert_eq!(
        pulled(&world).await.0,
        digest(&image("a")),
        "also after a restart"
    );
    world.store_blobs_of(&ubuntu(), "b");
    assert_eq!(pulled(&world).await.0, digest(&image("b")));
}

#[tokio::test]
async fn offline_the_newest_whole_image_is_served() {
    let world = moved(true).await.restarted_offline();
    assert_eq!(pulled(&world).await.0, digest(&image("a")));
    world.store_blobs_of(&ubuntu(), "b");
    assert_eq!(pulled(&world).await.0, digest(&image("b")));
}

#[tokio::test]
async fn where_no_image_is_whole_the_newest_is_served() {
    let world = moved(false).await;
    world.registry.fail_all(&unavailable());
    assert_eq!(pulled(&world).await.0, digest(&image("b")));
}

#[tokio::test]
async fn the_previous_image_is_kept_until_the_new_one_is_whole() {
    let world = moved(true).await;
    assert_eq!(pulled(&world).await.1, CacheOutcome::Revalidated);
    world.settled().await;
    assert_eq!(record(&world).unwrap().previous, Some(digest(&image("a"))));
    world.store_blobs_of(&ubuntu(), "b");
    world.clock.advance(MINUTE);
    pull(&world).await.unwrap();
    world.settled().await;
    assert_eq!(record(&world).unwrap().previous, None);
}

#[tokio::test]
async fn a_tag_that_moves_twice_keeps_the_image_that_was_whole() {
    let world = moved(true).await;
    world.registry.push(&ubuntu(), "latest", &image("c"));
    pull(&world).await.unwrap();
    world.clock.advance(MINUTE);
    world.registry.fail_all(&unavailable());
    assert_eq!(pulled(&world).await.0, digest(&image("a")));
}

#[tokio::test]
async fn that_the_previous_image_is_needed_no_more_is_written_at_once() {
    let world = warm(&always_asked()).await;
    world.registry.push(&ubuntu(), "latest", &image("b"));
    pull(&world).await.unwrap();
    world.settled().await;
    assert_eq!(record(&world).unwrap().previous, Some(digest(&image("a"))));
    world.store_blobs_of(&ubuntu(), "b");
    pull(&world).await.unwrap();
    world.settled().await;
    assert_eq!(record(&world).unwrap().previous, None);
}
