//! Rules for some tags.

use super::*;

const IMMUTABLE: &str = "[[tags.rule]]\nmatch = 'docker.io/library/*:latest'\nimmutable = true";

/// An instance that has pulled the image `a`, with the rule.
async fn ruled(rules: &str) -> World {
    let world = World::with_rules(rules);
    world.registry.push(&ubuntu(), "latest", &image("a"));
    pull(&world).await.unwrap();
    world.settled().await;
    world.registry.asked();
    world
}

#[tokio::test]
async fn a_rule_has_a_ttl_of_its_own() {
    let world = ruled("[[tags.rule]]\nmatch = '**:latest'\nttl = '1h'").await;
    world.clock.advance(59 * MINUTE);
    assert_eq!(pulled(&world).await.1, CacheOutcome::Hit);
    world.clock.advance(MINUTE);
    assert_eq!(pulled(&world).await.1, CacheOutcome::Revalidated);
    assert_eq!(world.registry.asked(), [HEAD]);
}

#[tokio::test]
async fn a_rule_for_another_tag_changes_nothing() {
    let world = ruled("[[tags.rule]]\nmatch = '**:stable'\nttl = '1h'").await;
    world.clock.advance(MINUTE);
    assert_eq!(pulled(&world).await.1, CacheOutcome::Revalidated);
}

#[tokio::test]
async fn an_immutable_tag_is_never_asked_about_again() {
    let world = ruled(IMMUTABLE).await;
    world.registry.push(&ubuntu(), "latest", &image("b"));
    world.clock.advance(100_000 * MINUTE);
    assert_eq!(
        pulled(&world).await,
        (digest(&image("a")), CacheOutcome::Hit)
    );
    let world = world.restarted_with_rules(IMMUTABLE);
    assert_eq!(
        pulled(&world).await,
        (digest(&image("a")), CacheOutcome::Hit)
    );
    assert!(world.registry.asked().is_empty());
}

#[tokio::test]
async fn an_immutable_tag_without_its_manifest_has_the_very_one_back() {
    let world = ruled(IMMUTABLE).await;
    world.registry.push(&ubuntu(), "latest", &image("b"));
    world.records.blobs.lock().clear();
    let world = world.restarted_with_rules(IMMUTABLE);
    assert_eq!(
        pulled(&world).await,
        (digest(&image("a")), CacheOutcome::Miss)
    );
    assert_eq!(world.registry.asked(), [get(&image("a"))]);
}

#[tokio::test]
async fn an_immutable_tag_whose_manifest_is_gone_everywhere_is_an_error_that_says_so() {
    let world = ruled(IMMUTABLE).await;
    world.registry.push(&ubuntu(), "latest", &image("b"));
    world.registry.remove(&ubuntu(), by_digest(&image("a")));
    world.records.blobs.lock().clear();
    let world = world.restarted_with_rules(IMMUTABLE);
    let error = pull(&world).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotFound { message, .. } if message.contains("immutable")),
        "{error}"
    );
}

/// The same world after an operator has said that the tag is to be asked about.
fn asked_for(world: &World) -> World {
    let record = TagRecord {
        ask: true,
        ..record(world).unwrap()
    };
    let key = ubuntu().key(RefKind::Tag(latest()));
    world
        .records
        .seed(&key, &serde_json::to_vec(&record).unwrap());
    world.restarted_with_rules(IMMUTABLE)
}

#[tokio::test]
async fn an_operator_lets_an_immutable_tag_move_once() {
    let world = ruled(IMMUTABLE).await;
    world.registry.push(&ubuntu(), "latest", &image("b"));
    let world = asked_for(&world);
    assert_eq!(
        pulled(&world).await,
        (digest(&image("b")), CacheOutcome::Miss)
    );
    world.settled().await;
    world.registry.push(&ubuntu(), "latest", &image("c"));
    world.clock.advance(100 * MINUTE);
    let world = world.restarted_with_rules(IMMUTABLE);
    assert_eq!(
        pulled(&world).await,
        (digest(&image("b")), CacheOutcome::Hit)
    );
}

#[tokio::test]
async fn a_tag_to_be_asked_about_is_served_stale_while_the_upstream_is_down() {
    let world = ruled(IMMUTABLE).await;
    let world = asked_for(&world);
    world.registry.fail_all(&unavailable());
    let outcome = pulled(&world).await.1;
    assert_eq!(outcome, CacheOutcome::Stale(StaleReason::Unreachable));
}

#[tokio::test]
async fn an_immutable_tag_is_fresh_for_ever() {
    let world = World::with_rules(IMMUTABLE);
    let key = TagKey {
        place: ubuntu(),
        tag: latest(),
    };
    let terms = world.tags.terms(&key).unwrap();
    assert_eq!(terms.policy.ttl, Duration::MAX);
    assert!(terms.immutable);
}
