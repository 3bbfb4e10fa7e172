use super::*;
use crate::proxy::admin::model::{FreshnessState, Presence};

#[tokio::test]
async fn images_come_in_order_and_pages_follow_without_gap_or_overlap() {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["layer"]);
    for (upstream, repository, tag) in [
        ("ghcr.io", "org/app", "v2"),
        ("docker.io", "library/alpine", "3.20"),
        ("docker.io", "library/alpine", "3.19"),
        ("docker.io", "library/alpine/sub", "x"),
        ("docker.io", "library/alpine-slim", "x"),
        ("ghcr.io", "org/app", "v10"),
    ] {
        shelf
            .image(&place(upstream, repository), tag, &picture)
            .await;
    }
    let untagged = Picture::new("b", &[]);
    shelf.manifest(&alpine(), &untagged.manifest).await;
    let names = shelf.names().await;
    let by_digest = format!("docker.io/library/alpine@{}", untagged.digest());
    assert_eq!(
        names,
        [
            "docker.io/library/alpine:3.19",
            "docker.io/library/alpine:3.20",
            &by_digest,
            "docker.io/library/alpine/sub:x",
            "docker.io/library/alpine-slim:x",
            "ghcr.io/org/app:v10",
            "ghcr.io/org/app:v2",
        ]
    );
    for n in 1..=names.len() + 1 {
        let (mut all, mut last) = (Vec::new(), None);
        loop {
            let query = ImageQuery {
                n: Some(n),
                last,
                matching: None,
            };
            let page = shelf.keeper.images(query).await.unwrap();
            assert!(page.images.len() <= n);
            all.extend(page.images.into_iter().map(|image| image.image));
            match page.next {
                Some(next) => last = Some(next),
                None => break,
            }
        }
        assert_eq!(all, names, "{n} at once");
    }
}

#[tokio::test]
async fn the_list_can_be_narrowed() {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["layer"]);
    for tag in ["3.19", "3.20", "edge"] {
        shelf.image(&alpine(), tag, &picture).await;
    }
    for (matching, count) in [
        ("docker.io/library/*:3.*", 2),
        ("alpine:edge", 1),
        ("alpine", 0),
    ] {
        let query = ImageQuery {
            matching: Some(matching.to_owned()),
            ..ImageQuery::default()
        };
        let page = shelf.keeper.images(query).await.unwrap();
        assert_eq!(page.images.len(), count, "{matching}");
    }
}

#[tokio::test]
async fn what_an_index_lists_is_no_image_of_its_own() {
    let shelf = Shelf::new().await;
    let (amd, arm) = (Picture::new("amd", &["a"]), Picture::new("arm", &["b"]));
    let digest = shelf
        .index(&alpine(), "3.20", &[("amd64", &amd), ("arm64", &arm)])
        .await;
    assert_eq!(shelf.names().await, ["docker.io/library/alpine:3.20"]);
    let key = alpine().key(RefKind::Tag("3.20".parse().unwrap()));
    shelf.store.remove_ref(&key).await.unwrap();
    assert_eq!(
        shelf.names().await,
        [format!("docker.io/library/alpine@{digest}")]
    );
}

#[tokio::test]
async fn size_counts_each_stored_blob_once_and_tells_what_others_share() {
    let shelf = Shelf::new().await;
    let (one, two) = (
        Picture::new("one", &["common", "common", "first"]),
        Picture::new("two", &["common", "second"]),
    );
    shelf.image(&alpine(), "1", &one).await;
    shelf.image(&place("ghcr.io", "org/app"), "2", &two).await;
    let [first, second] = shelf.list().await.try_into().unwrap();
    let common = "common".len() as u64;
    assert_eq!(first.size_bytes, one.len() - common);
    assert_eq!(second.size_bytes, two.len());
    assert_eq!((first.shared_bytes, second.shared_bytes), (common, common));
    shelf.tag(&alpine(), "1-again", &one.manifest).await;
    let [first, again, _] = shelf.list().await.try_into().unwrap();
    assert_eq!(first.shared_bytes, first.size_bytes);
    assert_eq!(again.shared_bytes, again.size_bytes);
}

#[tokio::test]
async fn platforms_tell_what_could_be_pulled_from_here_alone() {
    let shelf = Shelf::new().await;
    let (amd, arm) = (Picture::new("amd", &["a"]), Picture::new("arm", &["b"]));
    shelf
        .index(&alpine(), "3.20", &[("amd64", &amd), ("arm64", &arm)])
        .await;
    shelf.store.remove_blob(&sha("b")).await.unwrap();
    let detail = shelf.keeper.image("alpine:3.20").await.unwrap();
    let platforms: Vec<_> = detail
        .summary
        .platforms
        .iter()
        .map(|one| (one.platform.as_str(), one.complete))
        .collect();
    assert_eq!(platforms, [("linux/amd64", true), ("linux/arm64", false)]);
    assert_eq!(detail.manifests.len(), 3);
    assert_eq!(detail.manifests[0].platform, None);
    assert_eq!(detail.manifests[2].blobs[1].state, Presence::Missing);
    assert_eq!(detail.manifests[2].blobs[0].state, Presence::Present);
}

#[tokio::test]
async fn what_another_repository_brought_is_not_called_present() {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["theirs"]);
    shelf.image(&alpine(), "1", &picture).await;
    let proof = alpine().key(RefKind::Blob(sha("theirs")));
    shelf.store.remove_ref(&proof).await.unwrap();
    let detail = shelf.keeper.image("alpine:1").await.unwrap();
    assert_eq!(detail.manifests[0].blobs[1].state, Presence::Unproven);
    assert!(!detail.summary.platforms[0].complete);
    assert_eq!(
        detail.summary.size_bytes,
        picture.len() - "theirs".len() as u64
    );
}

#[tokio::test]
async fn looking_is_no_use() {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["layer"]);
    shelf.image(&alpine(), "1", &picture).await;
    let before = shelf.list().await;
    shelf.clock.advance(Duration::from_hours(5));
    shelf.keeper.image("alpine:1").await.unwrap();
    let after = shelf.list().await;
    assert!(before[0].last_used.is_some());
    assert_eq!(before[0].last_used, after[0].last_used);
    shelf.store.open_blob(&picture.digest()).unwrap();
    assert!(shelf.list().await[0].last_used > before[0].last_used);
}

#[tokio::test]
async fn freshness_follows_the_policy_and_a_refresh() {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["layer"]);
    shelf.image(&alpine(), "1", &picture).await;
    shelf
        .image(&place("gone.example", "app"), "1", &picture)
        .await;
    let freshness = async || {
        let images = shelf.list().await;
        images
            .into_iter()
            .map(|image| image.freshness)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        freshness().await,
        [FreshnessState::Fresh, FreshnessState::Old]
    );
    let refreshed = shelf.keeper.refresh("alpine:1").await.unwrap();
    assert_eq!(refreshed.images, ["docker.io/library/alpine:1"]);
    assert_eq!(
        freshness().await,
        [FreshnessState::Old, FreshnessState::Old]
    );
    let record = shelf.record(&alpine(), "1").unwrap();
    assert!(record.ask && record.digest == picture.digest());
    let by_digest = format!("alpine@{}", picture.digest());
    assert!(shelf.keeper.refresh(&by_digest).await.is_ok());
    let unknown = shelf.keeper.refresh("alpine:2").await;
    assert!(matches!(unknown, Err(AdminError::NotFound(_))));
}

#[tokio::test]
async fn a_record_that_cannot_be_understood_hides_no_other() {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["layer"]);
    for tag in ["1", "2", "3"] {
        shelf.image(&alpine(), tag, &picture).await;
    }
    let key = alpine().key(RefKind::Tag("2".parse().unwrap()));
    shelf.store.put_ref(&key, b"{".to_vec()).await.unwrap();
    assert_eq!(shelf.list().await.len(), 2);
}

#[tokio::test]
async fn statistics_count_what_is_stored_and_outlive_a_restart() {
    let shelf = Shelf::new().await;
    let (one, two) = (
        Picture::new("1", &["common"]),
        Picture::new("2", &["common"]),
    );
    shelf.image(&alpine(), "1", &one).await;
    shelf.image(&place("ghcr.io", "org/app"), "2", &two).await;
    let tally = &shelf.metrics.tally;
    tally.request("docker.io", true);
    tally.request("docker.io", false);
    tally.request("docker.io", false);
    tally.served("docker.io", false, 100);
    tally.served("docker.io", true, 300);
    tally.received("docker.io", 150);
    let seen = shelf.keeper.statistics().await.unwrap();
    let common = "common".len() as u64;
    assert_eq!(seen.size_bytes, one.len() + two.len() - common);
    assert_eq!(
        (seen.blobs, seen.total.tags, seen.total.repositories),
        (5, 2, 2)
    );
    let docker = &seen.upstreams[0];
    assert_eq!((docker.blobs, docker.size_bytes), (3, one.len()));
    assert_eq!(docker.request_hit_ratio, Some(0.3333));
    assert_eq!(docker.byte_hit_ratio, Some(0.75));
    assert_eq!(docker.saved_bytes, 250);
    assert_eq!(seen.upstreams[1].request_hit_ratio, None);
    assert_eq!(seen.since, None);

    let since = Timestamp::from_second(1_800_000_000).unwrap();
    let (store, tally) = (Arc::clone(&shelf.store), Arc::clone(&shelf.metrics.tally));
    let counting = Tasks::new();
    crate::proxy::admin::statistics::keep(store, tally, since, &counting);
    counting.stop();
    assert!(counting.drained(Duration::from_mins(1)).await);
    let again = shelf.reopened().await.keeper.statistics().await.unwrap();
    assert_eq!(again.since, Some(since));
    assert_eq!((again.total, again.upstreams), (seen.total, seen.upstreams));
}
