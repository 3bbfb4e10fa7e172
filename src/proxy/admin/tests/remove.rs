use super::*;
use crate::store::RefKindName;

#[tokio::test]
async fn what_two_images_share_stays_with_the_other_and_all_else_goes() {
    let shelf = Shelf::new().await;
    let (one, two) = (
        Picture::new("one", &["common", "first"]),
        Picture::new("two", &["common", "second"]),
    );
    let app = place("ghcr.io", "org/app");
    shelf.image(&alpine(), "1", &one).await;
    shelf.image(&app, "2", &two).await;
    let removal = shelf.keeper.remove("alpine:1", false).await.unwrap();
    assert_eq!(removal.images, ["docker.io/library/alpine:1"]);
    let common = "common".len() as u64;
    assert_eq!(
        (removal.blobs, removal.freed_bytes),
        (3, one.len() - common)
    );
    assert_eq!((removal.kept_blobs, removal.kept_bytes), (1, common));
    for gone in [&one.digest(), &sha(&one.config), &sha("first")] {
        assert!(!shelf.has(gone));
    }
    // A proof of membership goes with what it was about.
    for unproven in [
        &one.digest(),
        &sha(&one.config),
        &sha("first"),
        &sha("common"),
    ] {
        assert!(!shelf.is_proven(&alpine(), unproven));
    }
    assert_eq!(shelf.store.repositories().unwrap().len(), 1);
    let left = shelf.keeper.image("ghcr.io/org/app:2").await.unwrap();
    assert!(left.summary.platforms[0].complete);
    assert_eq!(left.summary.size_bytes, two.len());
}

#[tokio::test]
async fn a_dry_run_says_the_same_and_does_nothing() {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["1", "2"]);
    shelf.image(&alpine(), "1", &picture).await;
    shelf.image(&alpine(), "2", &picture).await;
    let before = shelf.list().await;
    let dry = shelf
        .keeper
        .remove("docker.io/library/*:*", true)
        .await
        .unwrap();
    assert!(dry.dry_run);
    assert_eq!(shelf.list().await, before);
    let wet = shelf
        .keeper
        .remove("docker.io/library/*:*", false)
        .await
        .unwrap();
    assert_eq!(wet.images, dry.images);
    assert_eq!((wet.blobs, wet.freed_bytes), (dry.blobs, dry.freed_bytes));
    assert_eq!((wet.blobs, wet.freed_bytes), (4, picture.len()));
    assert_eq!(shelf.list().await, []);
    assert_eq!(shelf.store.totals().blobs, 0);
}

#[tokio::test]
async fn an_image_with_another_tag_loses_only_the_one() {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["1"]);
    shelf.image(&alpine(), "1", &picture).await;
    shelf.tag(&alpine(), "1.0", &picture.manifest).await;
    let removal = shelf.keeper.remove("alpine:1", false).await.unwrap();
    assert_eq!((removal.blobs, removal.kept_blobs), (0, 3));
    let left = shelf.keeper.image("alpine:1.0").await.unwrap();
    assert!(left.summary.platforms[0].complete);
    assert_eq!(shelf.names().await, ["docker.io/library/alpine:1.0"]);
}

#[tokio::test]
async fn all_that_an_index_leads_to_goes_with_it() {
    let shelf = Shelf::new().await;
    let (amd, arm) = (Picture::new("amd", &["a"]), Picture::new("arm", &["b"]));
    let digest = shelf
        .index(&alpine(), "1", &[("amd64", &amd), ("arm64", &arm)])
        .await;
    let by_digest = format!("alpine@{digest}");
    let removal = shelf.keeper.remove(&by_digest, false).await.unwrap();
    assert_eq!(removal.images, ["docker.io/library/alpine:1"]);
    assert_eq!(shelf.store.totals().blobs, 0);
    let left = shelf.store.list_refs(
        &alpine().upstream,
        &alpine().repository,
        RefKindName::Manifest,
    );
    assert_eq!(left.unwrap(), []);
}

#[tokio::test]
async fn an_image_of_an_index_stays_while_the_index_does() {
    let shelf = Shelf::new().await;
    let amd = Picture::new("amd", &["a"]);
    shelf.index(&alpine(), "1", &[("amd64", &amd)]).await;
    shelf.tag(&alpine(), "1-amd64", &amd.manifest).await;
    let removal = shelf.keeper.remove("alpine:1-amd64", false).await.unwrap();
    assert_eq!(removal.blobs, 0);
    let left = shelf.keeper.image("alpine:1").await.unwrap();
    assert!(left.summary.platforms[0].complete);
}

#[tokio::test]
async fn what_a_tag_falls_back_to_stays_with_it() {
    let shelf = Shelf::new().await;
    let (old, new) = (Picture::new("old", &["old"]), Picture::new("new", &["new"]));
    shelf.image(&alpine(), "0", &old).await;
    shelf.image(&alpine(), "1", &new).await;
    let mut record = shelf.record(&alpine(), "1").unwrap();
    record.previous = Some(old.digest());
    let key = alpine().key(RefKind::Tag("1".parse().unwrap()));
    let bytes = serde_json::to_vec(&record).unwrap();
    shelf.store.put_ref(&key, bytes).await.unwrap();
    shelf.keeper.remove("alpine:0", false).await.unwrap();
    assert!(shelf.has(&old.digest()) && shelf.is_proven(&alpine(), &sha("old")));
    shelf.keeper.remove("alpine:1", false).await.unwrap();
    assert_eq!(shelf.store.totals().blobs, 0);
}

#[tokio::test]
async fn what_is_pulled_meanwhile_stays() {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["busy"]);
    shelf.image(&alpine(), "1", &picture).await;
    // As if it had been opened after the removal began.
    shelf.clock.advance(Duration::from_mins(1));
    shelf.store.open_blob(&sha("busy")).unwrap();
    shelf.clock.advance(Duration::ZERO);
    let remover = crate::proxy::admin::remove::Remover {
        store: Arc::clone(&shelf.store),
        pins: Arc::clone(shelf.keeper.pins()),
        memory: crate::proxy::admin::Memory::default(),
        dry_run: false,
        started: shelf.clock.now() - Duration::from_secs(30),
    };
    let name = "docker.io/library/alpine:1".parse().unwrap();
    let wanted = crate::proxy::admin::names::Wanted::One(name);
    let removal = remover.run(wanted).await.unwrap();
    assert_eq!(removal.kept_blobs, 1);
    assert!(shelf.has(&sha("busy")) && !shelf.has(&sha(&picture.config)));
}

#[tokio::test]
async fn a_reader_keeps_what_is_removed() {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["some layer"]);
    shelf.image(&alpine(), "1", &picture).await;
    let reader = shelf.store.open_blob(&sha("some layer")).unwrap().unwrap();
    shelf.keeper.remove("alpine:1", false).await.unwrap();
    assert!(!shelf.has(&sha("some layer")));
    let mut bytes = vec![0; 10];
    std::os::unix::fs::FileExt::read_exact_at(&*reader.file, &mut bytes, 0).unwrap();
    assert_eq!(bytes, b"some layer");
}

#[tokio::test]
async fn pinned_images_are_passed_over_and_unknown_ones_named() {
    let shelf = Shelf::with("[cache]\npin = ['docker.io/library/alpine:1']").await;
    let picture = Picture::new("a", &["1"]);
    shelf.image(&alpine(), "1", &picture).await;
    shelf.image(&alpine(), "2", &picture).await;
    let refused = shelf.keeper.remove("alpine:1", false).await.unwrap_err();
    assert!(refused.to_string().contains("is pinned"), "{refused}");
    let removal = shelf.keeper.remove("docker.io/library/alpine", false).await;
    assert!(
        matches!(removal, Err(AdminError::NotFound(_))),
        "{removal:?}"
    );
    let removal = shelf
        .keeper
        .remove("docker.io/library/alpine:*", false)
        .await
        .unwrap();
    assert_eq!(removal.images, ["docker.io/library/alpine:2"]);
    assert_eq!(removal.pinned, ["docker.io/library/alpine:1"]);
    assert_eq!(shelf.names().await, ["docker.io/library/alpine:1"]);
    let nothing = shelf.keeper.remove("ghcr.io/**", false).await.unwrap();
    assert_eq!(nothing.images, Vec::<String>::new());
}
