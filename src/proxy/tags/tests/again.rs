//! Revalidation.

use super::*;

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
