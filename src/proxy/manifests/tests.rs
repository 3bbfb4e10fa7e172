use std::sync::atomic::Ordering;

use super::*;
use crate::proxy::testing::{
    SECOND, World, call, client, denied, digest, image, index, place, policy, turns, ubuntu,
    unavailable,
};
use crate::store::{RefKey, RefKindName};

async fn fetch(world: &World, digest: &Digest) -> Result<ManifestAnswer, Error> {
    world.manifests.by_digest(&ubuntu(), digest, &call()).await
}

fn key(digest: &Digest) -> RefKey {
    ubuntu().key(RefKind::Manifest(digest.clone()))
}

#[tokio::test]
async fn a_manifest_is_asked_for_once_and_served_byte_for_byte_from_then_on() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    let cold = fetch(&world, &digest).await.unwrap();
    assert_eq!(cold.outcome, CacheOutcome::Miss);
    let warm = fetch(&world, &digest).await.unwrap();
    assert_eq!(warm.outcome, CacheOutcome::Hit);
    assert_eq!(warm.bytes, image("a").as_bytes());
    assert_eq!(warm.digest, digest);
    assert_eq!(warm.media_type, cold.media_type);
    assert_eq!(world.registry.asked(), [format!("GET {digest}")]);
}

#[tokio::test]
async fn a_restart_forgets_no_manifest() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    let before = fetch(&world, &digest).await.unwrap();
    world.settled().await;
    world.registry.asked();
    world.registry.fail_all(&unavailable());
    let world = world.restarted(&policy());
    let after = fetch(&world, &digest).await.unwrap();
    assert_eq!(after.outcome, CacheOutcome::Hit);
    assert_eq!(
        (after.bytes, after.media_type),
        (before.bytes, before.media_type)
    );
    assert!(world.registry.asked().is_empty());
}

#[tokio::test]
async fn the_bytes_are_durable_before_the_record_that_proves_them() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    fetch(&world, &digest).await.unwrap();
    world.settled().await;
    assert_eq!(world.records.written(), ["blob", "manifest"]);
}

#[tokio::test]
async fn the_answer_does_not_wait_for_the_disk() {
    let world = World::new();
    world.records.hold();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    let answer = fetch(&world, &digest).await.unwrap();
    assert_eq!(answer.outcome, CacheOutcome::Miss);
    assert_eq!(world.records.len(), 0);
    world.records.release();
    world.settled().await;
    assert!(world.records.stored(&key(&digest)).is_some());
}

#[tokio::test]
async fn a_full_disk_stops_no_answer() {
    let world = World::new();
    world.records.is_full.store(true, Ordering::Relaxed);
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    assert!(fetch(&world, &digest).await.is_ok());
    world.settled().await;
    assert_eq!(world.records.len(), 0);
    assert!(fetch(&world, &digest).await.is_ok());
}

#[tokio::test]
async fn stored_bytes_that_match_no_longer_are_thrown_away_and_fetched_anew() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    fetch(&world, &digest).await.unwrap();
    world.settled().await;
    let damaged = Bytes::from_static(b"{}");
    world.records.blobs.lock().insert(digest.clone(), damaged);
    let world = world.restarted(&policy());
    let answer = fetch(&world, &digest).await.unwrap();
    assert_eq!(answer.outcome, CacheOutcome::Miss);
    assert_eq!(answer.bytes, image("a").as_bytes());
    world.settled().await;
    assert_eq!(world.records.blobs.lock()[&digest], image("a").as_bytes());
}

#[tokio::test]
async fn a_record_without_its_bytes_is_a_miss() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    fetch(&world, &digest).await.unwrap();
    world.settled().await;
    world.records.blobs.lock().clear();
    let world = world.restarted(&policy());
    let answer = fetch(&world, &digest).await.unwrap();
    assert_eq!(answer.outcome, CacheOutcome::Miss);
}

#[tokio::test]
async fn a_damaged_record_is_a_miss() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    world.records.seed(&key(&digest), b"{\"media_type\":");
    assert_eq!(
        fetch(&world, &digest).await.unwrap().outcome,
        CacheOutcome::Miss
    );
}

#[tokio::test]
async fn requests_at_once_share_one_fetch() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    world.registry.hold();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let (manifests, digest) = (Arc::clone(&world.manifests), digest.clone());
            client(async move { manifests.by_digest(&ubuntu(), &digest, &call()).await })
        })
        .collect();
    turns().await;
    world.registry.release();
    let mut collapsed = 0;
    for client in clients {
        let answer = client.await.unwrap().unwrap();
        assert_eq!(answer.bytes, image("a").as_bytes());
        collapsed += usize::from(answer.outcome == CacheOutcome::Collapsed);
    }
    assert_eq!(collapsed, 19);
    assert_eq!(world.registry.asked(), [format!("GET {digest}")]);
}

#[tokio::test]
async fn a_client_that_leaves_strands_nobody_who_joined_its_fetch() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    world.registry.hold();
    let ask = || {
        let (manifests, digest) = (Arc::clone(&world.manifests), digest.clone());
        client(async move { manifests.by_digest(&ubuntu(), &digest, &call()).await })
    };
    let first = ask();
    turns().await;
    let second = ask();
    turns().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    world.registry.release();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(world.registry.asked(), [format!("GET {digest}")]);
}

#[tokio::test]
async fn a_fetch_whose_clients_have_all_left_is_stored_all_the_same() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    world.registry.hold();
    let (manifests, wanted) = (Arc::clone(&world.manifests), digest.clone());
    let only = client(async move { manifests.by_digest(&ubuntu(), &wanted, &call()).await });
    turns().await;
    only.abort();
    world.registry.release();
    world.settled().await;
    assert!(world.records.stored(&key(&digest)).is_some());
}

#[tokio::test]
async fn a_failure_is_shared_by_who_waited_and_kept_for_nobody_else() {
    for error in [
        unavailable(),
        denied(),
        crate::proxy::testing::rate_limited(),
    ] {
        let world = World::new();
        let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
        world.registry.fail_all(&error);
        world.registry.hold();
        let ask = || {
            let (manifests, digest) = (Arc::clone(&world.manifests), digest.clone());
            client(async move { manifests.by_digest(&ubuntu(), &digest, &call()).await })
        };
        let clients = [ask(), ask()];
        turns().await;
        world.registry.release();
        for client in clients {
            let failure = client.await.unwrap().unwrap_err();
            assert_eq!(failure.reason(), error.reason());
        }
        assert_eq!(world.registry.asked().len(), 1);
        world.registry.mend();
        assert!(fetch(&world, &digest).await.is_ok());
    }
}

#[tokio::test]
async fn shutdown_leaves_no_waiter_behind() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    world.registry.hold();
    let manifests = Arc::clone(&world.manifests);
    let waiting = client(async move { manifests.by_digest(&ubuntu(), &digest, &call()).await });
    turns().await;
    world.ctx.tasks.stop();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Stopping)));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gives_up_at_its_own_deadline() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    world.registry.hold();
    let failure = fetch(&world, &digest).await.unwrap_err();
    assert_eq!(failure.reason(), "unavailable");
}

#[tokio::test]
async fn an_absence_is_believed_for_negative_ttl_and_no_longer() {
    let world = World::new();
    let digest = digest(&image("a"));
    for _ in 0..3 {
        let failure = fetch(&world, &digest).await.unwrap_err();
        assert!(matches!(failure, Error::NotFound { .. }));
        world.clock.advance(3 * SECOND);
    }
    assert_eq!(world.registry.asked(), [format!("GET {digest}")]);
    world.registry.push_untagged(&ubuntu(), &image("a"));
    world.clock.advance(2 * SECOND);
    assert!(fetch(&world, &digest).await.is_ok());
}

#[tokio::test]
async fn a_remembered_absence_hides_nothing_that_is_stored() {
    let world = World::new();
    let digest = digest(&image("a"));
    fetch(&world, &digest).await.unwrap_err();
    world.records.seed(
        &key(&digest),
        br#"{"media_type":"application/vnd.oci.image.manifest.v1+json","size":1}"#,
    );
    let bytes = Bytes::from(image("a"));
    world.records.blobs.lock().insert(digest.clone(), bytes);
    assert_eq!(
        fetch(&world, &digest).await.unwrap().outcome,
        CacheOutcome::Hit
    );
}

/// Stored under ghcr.io/acme/web, and not proven for any other repository.
async fn stored_elsewhere(world: &World) -> Digest {
    let elsewhere = place("ghcr.io", "acme/web");
    let digest = world.registry.push_untagged(&elsewhere, &image("a"));
    let manifests = &world.manifests;
    manifests
        .by_digest(&elsewhere, &digest, &call())
        .await
        .unwrap();
    world.settled().await;
    world.registry.asked();
    digest
}

#[tokio::test]
async fn bytes_of_another_repository_cost_a_head_and_no_get() {
    let world = World::new();
    let digest = stored_elsewhere(&world).await;
    world.registry.push_untagged(&ubuntu(), &image("a"));
    let answer = fetch(&world, &digest).await.unwrap();
    assert_eq!(answer.outcome, CacheOutcome::Revalidated);
    assert_eq!(answer.bytes, image("a").as_bytes());
    assert_eq!(world.registry.asked(), [format!("HEAD {digest}")]);
    world.settled().await;
    assert!(world.records.stored(&key(&digest)).is_some());
}

#[tokio::test]
async fn bytes_of_another_repository_are_not_served_without_a_proof() {
    let world = World::new();
    let digest = stored_elsewhere(&world).await;
    let failure = fetch(&world, &digest).await.unwrap_err();
    assert!(matches!(failure, Error::NotFound { .. }));
    world.clock.advance(11 * SECOND);
    world.registry.fail_all(&unavailable());
    let failure = fetch(&world, &digest).await.unwrap_err();
    assert_eq!(failure.reason(), "unavailable");
    assert_eq!(world.records.stored(&key(&digest)), None);
    let offline = world.restarted_offline();
    let failure = fetch(&offline, &digest).await.unwrap_err();
    assert!(matches!(failure, Error::NotCached { .. }));
}

#[tokio::test]
async fn an_upstream_that_sends_other_bytes_is_not_believed() {
    let world = World::new();
    let wanted = digest(&image("a"));
    let reference = Reference::Digest(wanted.clone());
    let sent = digest(&image("b"));
    world.registry.set(&ubuntu(), reference, &image("b"), &sent);
    let failure = fetch(&world, &wanted).await.unwrap_err();
    assert_eq!(failure.reason(), "corrupt");
    world.settled().await;
    assert_eq!(world.records.len(), 0);
}

#[tokio::test]
async fn what_cannot_be_verified_is_passed_through_and_never_stored() {
    let world = World::new();
    let odd: Digest = "blake3:abcdef".parse().unwrap();
    let reference = Reference::Digest(odd.clone());
    world
        .registry
        .set(&ubuntu(), reference, &image("a"), &digest(&image("a")));
    for _ in 0..2 {
        let answer = fetch(&world, &odd).await.unwrap();
        let bypass = CacheOutcome::Bypass(BypassReason::Unverifiable);
        assert_eq!((answer.outcome, answer.digest), (bypass, odd.clone()));
    }
    world.settled().await;
    assert_eq!(world.registry.asked().len(), 2);
    assert_eq!(world.records.len(), 0);
}

#[tokio::test]
async fn offline_nothing_is_asked() {
    let world = World::new();
    let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
    let world = world.restarted_offline();
    let failure = fetch(&world, &digest).await.unwrap_err();
    assert!(matches!(failure, Error::NotCached { .. }));
    let odd: Digest = "blake3:abcdef".parse().unwrap();
    assert!(fetch(&world, &odd).await.is_err());
    assert!(world.registry.asked().is_empty());
}

async fn is_complete(world: &World, body: &str) -> bool {
    let digest = world.registry.push_untagged(&ubuntu(), body);
    let (held, _) = world
        .manifests
        .fetch(&ubuntu(), &digest, &call())
        .await
        .unwrap();
    world.manifests.complete(&ubuntu(), &held).await
}

#[tokio::test]
async fn an_image_is_complete_once_config_and_layers_are_stored_and_proven() {
    let world = World::new();
    assert!(!is_complete(&world, &image("a")).await);
    world.store_blobs_of(&place("ghcr.io", "acme/web"), "a");
    assert!(
        !is_complete(&world, &image("a")).await,
        "naming is not owning"
    );
    world.store_blobs_of(&ubuntu(), "a");
    assert!(is_complete(&world, &image("a")).await);
    world.records.blobs.lock().clear();
    assert!(
        !is_complete(&world, &image("a")).await,
        "a proof without bytes"
    );
}

#[tokio::test]
async fn an_index_is_complete_with_one_of_its_platforms() {
    let world = World::new();
    let (one, two) = (image("amd64"), image("arm64"));
    let list = index(&[&one, &two]);
    assert!(!is_complete(&world, &list).await);
    world.store_blobs_of(&ubuntu(), "arm64");
    assert!(
        !is_complete(&world, &list).await,
        "its manifest is not here"
    );
    assert!(is_complete(&world, &two).await);
    assert!(is_complete(&world, &list).await);
}

#[tokio::test]
async fn an_index_that_holds_too_many_children_is_incomplete_and_not_searched_without_end() {
    let world = World::new();
    let last = image("last");
    world.store_blobs_of(&ubuntu(), "last");
    assert!(is_complete(&world, &last).await);
    let others: Vec<String> = (0..3000).map(|n| image(&n.to_string())).collect();
    let mut children: Vec<&str> = others.iter().map(String::as_str).collect();
    children.push(&last);
    assert!(!is_complete(&world, &index(&children)).await);
}

#[tokio::test]
async fn a_manifest_proves_nothing_of_what_it_names() {
    let world = World::new();
    assert!(!is_complete(&world, &image("a")).await);
    world.settled().await;
    assert_eq!(world.records.count(RefKindName::Blob), 0);
}

#[tokio::test]
async fn a_head_that_names_another_digest_proves_nothing() {
    let world = World::new();
    let wanted = stored_elsewhere(&world).await;
    let other = digest(&image("b"));
    let reference = Reference::Digest(wanted.clone());
    world
        .registry
        .set(&ubuntu(), reference, &image("b"), &other);
    let failure = fetch(&world, &wanted).await.unwrap_err();
    assert_eq!(failure.reason(), "corrupt");
    assert_eq!(world.records.stored(&key(&wanted)), None);
}
