//! Old answers, and the previous manifest.

use super::*;

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
async fn a_moved_tag_whose_manifest_is_too_slow_gets_a_stale_answer_and_moves_later() {
    let world = old().await;
    let new = world.registry.push(&ubuntu(), "latest", &image("b"));
    world.registry.hold_only("GET");
    let start = tokio::time::Instant::now();
    let stale = CacheOutcome::Stale(StaleReason::Unreachable);
    assert_eq!(pulled(&world).await, (digest(&image("a")), stale));
    assert_eq!(start.elapsed(), 3 * SECOND);
    world.registry.release();
    world.settled().await;
    assert_eq!(pulled(&world).await, (new, CacheOutcome::Hit));
    assert_eq!(world.registry.asked(), [HEAD, &get(&image("b"))]);
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
    let now = tokio::time::Instant::now();
    let moved = Arc::new(Entry::followed_by(None, moved, now).0);
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
    world.clock.advance(10 * SECOND);
    assert_eq!(pulled(&world).await.0, digest(&image("b")));
}

#[tokio::test]
async fn offline_the_newest_whole_image_is_served() {
    let world = moved(true).await.restarted_offline();
    assert_eq!(pulled(&world).await.0, digest(&image("a")));
    world.store_blobs_of(&ubuntu(), "b");
    world.clock.advance(10 * SECOND);
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

#[tokio::test]
async fn what_an_image_lacks_is_not_looked_for_at_every_use() {
    let world = moved(true).await;
    world.registry.fail_all(&unavailable());
    let looked = || world.records.proofs_read.swap(0, Ordering::Relaxed);
    looked();
    pull(&world).await.unwrap();
    assert!(looked() > 0);
    for _ in 0..3 {
        assert_eq!(pulled(&world).await.0, digest(&image("a")));
    }
    assert_eq!(looked(), 0);
    world.clock.advance(10 * SECOND);
    pull(&world).await.unwrap();
    assert_eq!(looked(), 1, "the previous image stays whole");
    world.store_blobs_of(&ubuntu(), "b");
    world.clock.advance(10 * SECOND);
    assert_eq!(pulled(&world).await.0, digest(&image("b")));
    looked();
    world.clock.advance(10 * SECOND);
    assert_eq!(pulled(&world).await.0, digest(&image("b")));
    assert_eq!(looked(), 0);
    // Parts of it may be evicted.
    world.clock.advance(MINUTE);
    assert_eq!(pulled(&world).await.0, digest(&image("b")));
    assert!(looked() > 0);
}

/// Else a take-down would end with the upstream's next outage.
#[tokio::test]
async fn what_was_taken_down_is_not_brought_back_by_an_outage_or_a_restart() {
    let strict = TagPolicy {
        stale_while_revalidate: MINUTE,
        stale_if_gone: Duration::ZERO,
        stale_if_denied: Duration::ZERO,
        ..policy()
    };
    for withdrawal in [not_found(), denied()] {
        let world = warm(&strict).await;
        world.clock.advance(2 * MINUTE);
        world.registry.fail_all(&withdrawal);
        assert!(pull(&world).await.is_err());
        for outage in [unavailable(), rate_limited()] {
            world.clock.advance(10 * SECOND);
            world.registry.fail_all(&outage);
            assert_eq!(pull(&world).await.unwrap_err().reason(), outage.reason());
        }
        world.settled().await;
        let world = world.restarted(&strict);
        world.registry.fail_all(&unavailable());
        assert!(pull(&world).await.is_err());

        world.registry.mend();
        world.clock.advance(10 * SECOND);
        assert_eq!(pulled(&world).await.1, CacheOutcome::Revalidated);
        world.clock.advance(2 * MINUTE);
        world.registry.fail_all(&unavailable());
        let stale = CacheOutcome::Stale(StaleReason::Unreachable);
        assert_eq!(pulled(&world).await.1, stale);
    }
}

#[tokio::test]
async fn what_was_gone_before_an_outage_is_served_for_that_reason() {
    let world = old().await;
    world.registry.fail_all(&not_found());
    let gone = CacheOutcome::Stale(StaleReason::Gone);
    assert_eq!(pulled(&world).await.1, gone);
    world.clock.advance(10 * SECOND);
    world.registry.fail_all(&unavailable());
    assert_eq!(pulled(&world).await.1, gone);
}
