use super::*;
use crate::proxy::admin::Memory;
use crate::proxy::retention::Retention;
use crate::proxy::{CacheOutcome, ManifestAnswer};
use crate::store::testing::Sick;

#[tokio::test]
async fn what_cannot_be_read_stops_nothing_where_nothing_is_pinned_below() {
    let sick = Sick::new();
    let dir = tempfile::tempdir().unwrap();
    let (toml, files) = (
        "[cache]\npin = ['docker.io/library/*:1']",
        Arc::<Sick>::clone(&sick),
    );
    let shelf = Shelf::open_over(dir, toml, Clock::system(), files).await;
    let picture = Picture::new("a", &["a"]);
    shelf.image(&alpine(), "1", &picture).await;
    shelf
        .image(&place("ghcr.io", "org/app"), "1", &picture)
        .await;
    let protected = || {
        shelf
            .keeper
            .pins()
            .protected(&shelf.store, shelf.clock.now())
    };
    sick.cannot_list(&shelf.dir.path().join("data/refs/ghcr.io/org"));
    assert!(protected().unwrap().keeps(&sha("a")));
    sick.cannot_list(&shelf.dir.path().join("data/refs/docker.io/library"));
    protected().unwrap_err();
}

#[tokio::test]
async fn what_a_pinned_tag_has_just_moved_to_outlives_a_walk_that_came_before_its_record() {
    let shelf = Shelf::with("[cache]\npin = ['docker.io/library/*:1']").await;
    let protection = shelf.keeper.protection();
    let (digest, part, tag) = (sha("moved to"), sha("part"), "1".parse().unwrap());
    let parts = || vec![digest.clone(), part.clone()];
    protection.note(&alpine(), Some(&tag), &digest, parts);
    protection.find_out().await.unwrap();
    assert!(shelf.store.is_pinned(&part));
    protection.find_out().await.unwrap();
    assert!(!shelf.store.is_pinned(&part));
}

#[tokio::test(start_paused = true)]
async fn a_pin_whose_walk_fails_is_in_force_soon_all_the_same() {
    let sick = Sick::new();
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::<Sick>::clone(&sick);
    let shelf = Shelf::open_over(dir, "", Clock::system(), files).await;
    let picture = Picture::new("a", &["a"]);
    shelf.image(&alpine(), "1", &picture).await;
    let keeper = Keeper::serving(
        &Config::from_toml("", &Overrides::default()).unwrap(),
        Arc::clone(&shelf.store),
        shelf.clock.clone(),
        Arc::clone(&shelf.metrics),
        shelf.tasks.clone(),
        Memory::default(),
    );
    let keeper = keeper.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let refs = shelf.dir.path().join("data/refs");
    sick.cannot_list(&refs.join("docker.io/library/alpine/_tags"));
    keeper.pin("alpine:1").await.unwrap_err();
    sick.cannot_list(&refs.join("nothing"));
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert!(shelf.store.is_pinned(&sha("a")));
}

#[tokio::test]
async fn asking_where_a_pinned_tag_points_protects_it_and_only_sending_it_is_a_use() {
    let shelf = Shelf::with("[cache]\npin = ['docker.io/library/*:1']").await;
    let picture = Picture::new("a", &["a"]);
    let digest = shelf.manifest(&alpine(), &picture.manifest).await;
    let protection = Arc::clone(shelf.keeper.protection());
    let retention = Retention::new(Arc::clone(&shelf.store), shelf.clock.clone(), protection);
    let answer = ManifestAnswer {
        bytes: Bytes::from(picture.manifest.clone()),
        media_type: MediaType::parse(MediaType::OCI_MANIFEST).unwrap(),
        digest: digest.clone(),
        outcome: CacheOutcome::Hit,
        warning: None,
    };
    let used = || shelf.store.look_at_blob(&digest).unwrap().unwrap().used;
    shelf.clock.advance(Duration::from_hours(1));
    let before = used();
    let tag = crate::oci::Reference::Tag("1".parse().unwrap());
    retention.answered(&alpine(), &tag, &answer);
    assert!(shelf.store.is_pinned(&sha("a")));
    assert_eq!(used(), before);
    retention.sent(&answer);
    assert!(used() > before);
}

#[tokio::test]
async fn pins_by_command_are_there_after_a_restart_and_can_be_taken_away() {
    let shelf = Shelf::with("[cache]\npin = ['ghcr.io/**']").await;
    let picture = Picture::new("a", &["1"]);
    shelf.image(&alpine(), "latest", &picture).await;
    shelf.image(&alpine(), "3.20", &picture).await;
    let change = shelf.keeper.pin("alpine").await.unwrap();
    assert_eq!(
        (change.pin.as_str(), change.changed),
        ("docker.io/library/alpine:latest", true)
    );
    assert!(!shelf.keeper.pin("alpine:latest").await.unwrap().changed);
    let by_digest = format!("alpine@{}", picture.digest());
    shelf.keeper.pin(&by_digest).await.unwrap();
    shelf.keeper.pin("docker.io/org/*:v*").await.unwrap();
    let shelf = shelf.reopened().await;
    let pins = Administration::pins(&shelf.keeper).await.unwrap();
    assert_eq!(pins.config, ["ghcr.io/**"]);
    assert_eq!(pins.command.len(), 3);
    assert!(shelf.list().await.iter().all(|image| image.pinned));
    shelf.keeper.unpin(&by_digest).await.unwrap();
    let shelf = shelf.reopened().await;
    let pinned: Vec<_> = shelf
        .list()
        .await
        .iter()
        .map(|image| image.pinned)
        .collect();
    assert_eq!(pinned, [false, true]);
    for (name, said) in [
        ("alpine:3.20", "is not a pin"),
        ("ghcr.io/**", "configuration"),
    ] {
        let error = shelf.keeper.unpin(name).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn all_that_pinned_images_lead_to_is_protected_and_nothing_else() {
    let shelf = Shelf::with("[cache]\npin = ['docker.io/library/*:1']").await;
    let (amd, arm) = (
        Picture::new("amd", &["a", "both"]),
        Picture::new("arm", &["b"]),
    );
    let other = Picture::new("other", &["both", "c"]);
    let index = shelf
        .index(&alpine(), "1", &[("amd64", &amd), ("arm64", &arm)])
        .await;
    shelf.image(&alpine(), "2", &other).await;
    shelf.image(&place("ghcr.io", "org/app"), "1", &other).await;
    let now = shelf.clock.now();
    let protected = shelf.keeper.pins().protected(&shelf.store, now).unwrap();
    assert_eq!(protected.as_of(), now);
    let pinned = [
        amd.digest(),
        arm.digest(),
        index,
        sha("a"),
        sha("b"),
        sha("both"),
    ];
    let configs = [sha(&amd.config), sha(&arm.config)];
    assert!(
        pinned
            .iter()
            .chain(&configs)
            .all(|digest| protected.keeps(digest))
    );
    assert_eq!(protected.len(), 8);
    assert!(!protected.keeps(&sha("c")));
    let without = Shelf::new().await;
    assert!(
        without
            .keeper
            .pins()
            .protected(&without.store, now)
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_pinned_tag_keeps_the_image_before_for_as_long_as_its_record_names_it() {
    let shelf = Shelf::with("[cache]\npin = ['docker.io/library/*:1']").await;
    let (before, after) = (Picture::new("a", &["old"]), Picture::new("b", &["new"]));
    shelf.image(&alpine(), "1", &before).await;
    shelf.image(&alpine(), "1", &after).await;
    let record = shelf.record(&alpine(), "1").unwrap();
    for (previous, is_kept) in [(Some(before.digest()), true), (None, false)] {
        let record = TagRecord {
            previous,
            ..record.clone()
        };
        let key = alpine().key(RefKind::Tag("1".parse().unwrap()));
        let bytes = serde_json::to_vec(&record).unwrap();
        shelf.store.put_ref(&key, bytes).await.unwrap();
        let now = shelf.clock.now();
        let protected = shelf.keeper.pins().protected(&shelf.store, now).unwrap();
        assert!(protected.keeps(&sha("new")));
        assert_eq!(protected.keeps(&sha("old")), is_kept);
        assert_eq!(protected.keeps(&before.digest()), is_kept);
    }
}

#[tokio::test]
async fn a_damaged_list_of_pins_pins_nothing_and_stops_nothing() {
    let shelf = Shelf::new().await;
    shelf.keeper.pin("alpine").await.unwrap();
    std::fs::write(shelf.dir.path().join("data/pins.json"), "{").unwrap();
    let shelf = shelf.reopened().await;
    assert_eq!(
        Administration::pins(&shelf.keeper)
            .await
            .unwrap()
            .command
            .len(),
        0
    );
    shelf.keeper.pin("alpine").await.unwrap();
    let shelf = shelf.reopened().await;
    assert_eq!(
        Administration::pins(&shelf.keeper)
            .await
            .unwrap()
            .command
            .len(),
        1
    );
}
