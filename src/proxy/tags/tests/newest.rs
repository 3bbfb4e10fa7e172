//! Where a tag points now, for one who insists.

use super::*;

async fn newest(world: &World) -> Result<(Digest, CacheOutcome), Error> {
    let found = world.tags.newest(&ubuntu(), &latest(), &call()).await;
    found.map(|(held, outcome)| (held.digest.clone(), outcome))
}

#[tokio::test]
async fn a_tag_is_asked_about_however_fresh_it_is() {
    let world = warm(&policy()).await;
    let same = (digest(&image("a")), CacheOutcome::Revalidated);
    assert_eq!(newest(&world).await.unwrap(), same);
    assert_eq!(world.registry.asked(), [HEAD]);
    world.registry.push(&ubuntu(), "latest", &image("b"));
    let moved = (digest(&image("b")), CacheOutcome::Miss);
    assert_eq!(newest(&world).await.unwrap(), moved);
    assert_eq!(world.registry.asked(), [HEAD.to_owned(), get(&image("b"))]);
    // Clients have it from here on.
    assert_eq!(
        pulled(&world).await,
        (digest(&image("b")), CacheOutcome::Hit)
    );
}

#[tokio::test]
async fn an_old_answer_is_none_for_who_insists() {
    let world = warm(&policy()).await;
    world.registry.fail_all(&unavailable());
    let failure = newest(&world).await;
    assert!(matches!(
        failure,
        Err(Error::Upstream(upstream::Error::Unavailable { .. }))
    ));
    assert_eq!(
        pulled(&world).await.0,
        digest(&image("a")),
        "clients have it still"
    );
    let world = world.restarted_offline();
    assert!(matches!(newest(&world).await, Err(Error::NotCached { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_client_does_not_wait_with_who_insists() {
    let world = Arc::new(old().await);
    world.registry.hold();
    let asking = Arc::clone(&world);
    let insists = client(async move { newest(&asking).await });
    turns().await;
    assert_eq!(world.registry.asked(), [HEAD]);
    let start = tokio::time::Instant::now();
    let stale = CacheOutcome::Stale(StaleReason::Unreachable);
    assert_eq!(pulled(&world).await, (digest(&image("a")), stale));
    assert_eq!(start.elapsed(), world.ctx.revalidate_timeout);
    assert!(!insists.is_finished());
    let moved = world.registry.push(&ubuntu(), "latest", &image("b"));
    world.registry.release();
    assert_eq!(insists.await.unwrap().unwrap().0, moved);
}

#[tokio::test]
async fn an_immutable_tag_stays_where_it_is_for_all() {
    let rule = "[[tags.rule]]\nmatch = '**:latest'\nimmutable = true";
    let world = World::with_rules(rule);
    world.registry.push(&ubuntu(), "latest", &image("a"));
    newest(&world).await.unwrap();
    world.registry.asked();
    world.registry.push(&ubuntu(), "latest", &image("b"));
    let same = (digest(&image("a")), CacheOutcome::Hit);
    assert_eq!(newest(&world).await.unwrap(), same);
    assert!(world.registry.asked().is_empty());
}

#[tokio::test]
async fn it_can_be_waited_for_until_it_is_on_disk() {
    let world = World::new();
    world.registry.push(&ubuntu(), "latest", &image("a"));
    let (found, _) = newest(&world).await.unwrap();
    let (place, tag) = (ubuntu(), latest());
    assert!(world.tags.is_saved(&place, &tag, &found).await);
    assert_eq!(record(&world).unwrap().digest, found);
    let other = digest(&image("b"));
    assert!(!world.tags.is_saved(&place, &tag, &other).await);
}
