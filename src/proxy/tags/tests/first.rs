//! New tags, and what a restart leaves of them.

use super::*;

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
