use std::{fs, io};

use super::*;
use crate::flight::ports::{Blobs as _, Leave, StageId};
use crate::proxy::adapt::StoreBlobs;
use crate::proxy::admin::Memory;
use crate::proxy::admin::sweep::{KEPT, Swept};
use crate::proxy::testing::World;
use crate::store::RefKey;
use crate::store::testing::Sick;

/// Longer than proofs are kept.
const LONG: Duration = Duration::from_hours(91 * 24);

fn org() -> Place {
    place("ghcr.io", "org/app")
}

fn proof(place: &Place, text: &str) -> RefKey {
    place.key(RefKind::Blob(sha(text)))
}

/// Has so much time passed, and then what is due done.
async fn later(by: Duration) {
    // What was begun just now counts from here.
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::time::advance(by).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
}

impl Shelf {
    async fn swept(&self) -> Swept {
        self.keeper.sweep().round().await.unwrap()
    }

    async fn evict(&self, text: &str) {
        assert!(self.store.remove_blob(&sha(text)).await.unwrap());
    }

    /// A repository was shown to have what was never stored.
    async fn prove(&self, place: &Place, text: &str) {
        let key = proof(place, text);
        self.store.put_ref(&key, Vec::new()).await.unwrap();
    }

    /// Serves what is on the shelf, for as long as this test runs.
    fn served(&self, toml: &str) -> Keeper {
        let keeper = Keeper::serving(
            &Config::from_toml(toml, &Overrides::default()).unwrap(),
            Arc::clone(&self.store),
            self.clock.clone(),
            Arc::clone(&self.metrics),
            self.tasks.clone(),
            Memory::default(),
        );
        keeper.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn old_proofs_of_what_was_evicted_go_and_what_is_here_keeps_its_own() {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["kept"]);
    shelf.image(&alpine(), "1", &picture).await;
    shelf.blob(&alpine(), "gone").await;
    shelf.blob(&org(), "gone").await;
    let untagged = Picture::new("b", &[]);
    shelf.manifest(&org(), &untagged.manifest).await;
    for text in ["gone", &untagged.manifest] {
        shelf.evict(text).await;
    }
    shelf.clock.advance(LONG);
    let expected = Swept {
        looked: 6,
        removed: 3,
        ..Swept::default()
    };
    assert_eq!(shelf.swept().await, expected);
    for place in [alpine(), org()] {
        assert!(!shelf.is_proven(&place, &sha("gone")));
    }
    assert!(!shelf.is_proven(&org(), &untagged.digest()));
    for digest in [sha("kept"), sha(&picture.config), picture.digest()] {
        assert!(shelf.is_proven(&alpine(), &digest));
    }
    assert_eq!(shelf.metrics.cache.swept_proofs.get(), 3);
    assert_eq!(shelf.swept().await.removed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_proof_stays_for_as_long_as_it_is_kept() {
    let shelf = Shelf::new().await;
    shelf.prove(&alpine(), "gone").await;
    shelf
        .clock
        .advance(KEPT.saturating_sub(Duration::from_hours(1)));
    assert_eq!(shelf.swept().await.removed, 0);
    assert!(shelf.is_proven(&alpine(), &sha("gone")));
    shelf.clock.advance(Duration::from_hours(2));
    assert_eq!(shelf.swept().await.removed, 1);
    assert!(!shelf.is_proven(&alpine(), &sha("gone")));
}

#[tokio::test(start_paused = true)]
async fn what_a_tag_names_now_or_named_before_keeps_its_proof() {
    for is_previous in [false, true] {
        let shelf = Shelf::new().await;
        let (named, other) = (Picture::new("a", &[]), Picture::new("b", &[]));
        shelf.manifest(&alpine(), &named.manifest).await;
        shelf.manifest(&alpine(), &other.manifest).await;
        shelf.tag(&alpine(), "1", &named.manifest).await;
        if is_previous {
            let mut record = shelf.record(&alpine(), "1").unwrap();
            record.previous = Some(std::mem::replace(&mut record.digest, sha("moved to")));
            let key = alpine().key(RefKind::Tag("1".parse().unwrap()));
            let bytes = serde_json::to_vec(&record).unwrap();
            shelf.store.put_ref(&key, bytes).await.unwrap();
        }
        shelf.evict(&named.manifest).await;
        shelf.evict(&other.manifest).await;
        shelf.clock.advance(LONG);
        assert_eq!(shelf.swept().await.removed, 1, "previous: {is_previous}");
        assert!(shelf.is_proven(&alpine(), &named.digest()));
        assert!(!shelf.is_proven(&alpine(), &other.digest()));
        let key = alpine().key(RefKind::Tag("1".parse().unwrap()));
        shelf.store.remove_ref(&key).await.unwrap();
        assert_eq!(shelf.swept().await.removed, 1);
        assert!(!shelf.is_proven(&alpine(), &named.digest()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_cannot_be_understood_may_name_anything() {
    let shelf = Shelf::new().await;
    shelf.prove(&alpine(), "gone").await;
    let key = alpine().key(RefKind::Tag("1".parse().unwrap()));
    shelf.store.put_ref(&key, b"{".to_vec()).await.unwrap();
    shelf.clock.advance(LONG);
    let swept = shelf.swept().await;
    assert_eq!((swept.removed, swept.unknown), (0, 1));
    shelf.store.remove_ref(&key).await.unwrap();
    assert_eq!(shelf.swept().await.removed, 1);
}

#[tokio::test(start_paused = true)]
async fn offline_nothing_goes_and_else_it_goes_by_itself_within_a_day() {
    let shelf = Shelf::new().await;
    shelf.prove(&alpine(), "gone").await;
    shelf.clock.advance(LONG);
    let keeper = shelf.served("offline = true");
    later(Duration::from_hours(1)).await;
    later(Duration::from_hours(48)).await;
    assert!(shelf.is_proven(&alpine(), &sha("gone")));
    drop(keeper);
    let shelf = shelf.reopened().await;
    let _keeper = shelf.served("");
    later(Duration::from_hours(1)).await;
    assert!(!shelf.is_proven(&alpine(), &sha("gone")));
    // What grows old later goes at a later round, and none comes sooner than a day after.
    shelf.prove(&alpine(), "gone").await;
    shelf.clock.advance(LONG);
    later(Duration::from_hours(22)).await;
    assert!(shelf.is_proven(&alpine(), &sha("gone")));
    later(Duration::from_hours(2)).await;
    assert!(!shelf.is_proven(&alpine(), &sha("gone")));
}

#[tokio::test(start_paused = true)]
async fn more_than_is_gone_over_at_once_is_gone_over_no_faster_than_it_may() {
    let shelf = Shelf::new().await;
    shelf.blob(&alpine(), "here").await;
    let upstream = shelf.dir.path().join("data/refs/ghcr.io");
    for number in 0..300 {
        let proofs = upstream.join(format!("org/app{number}/_blobs"));
        fs::create_dir_all(&proofs).unwrap();
        fs::write(proofs.join(sha("here").as_str()), "").unwrap();
        let one = upstream.join("all/_blobs");
        fs::create_dir_all(&one).unwrap();
        let gone = sha(&format!("gone {number}"));
        fs::write(one.join(gone.as_str()), "").unwrap();
    }
    shelf.clock.advance(LONG);
    let started = tokio::time::Instant::now();
    let expected = Swept {
        looked: 601,
        removed: 300,
        ..Swept::default()
    };
    assert_eq!(shelf.swept().await, expected);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(601 + 300), "{took:?}");
    assert_eq!(shelf.store.repositories().unwrap().len(), 301);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_keeps_its_proofs_and_stops_nothing() {
    let sick = Sick::new();
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::<Sick>::clone(&sick);
    let shelf = Shelf::open_over(dir, "", Clock::system(), files).await;
    for place in [alpine(), org()] {
        shelf.prove(&place, "gone").await;
    }
    shelf.clock.advance(LONG);
    let refs = shelf.dir.path().join("data/refs");
    for unreadable in [
        "docker.io/library",
        "docker.io/library/alpine/_blobs",
        "docker.io/library/alpine/_tags",
    ] {
        sick.cannot_list(&refs.join(unreadable));
        shelf.swept().await;
        assert!(shelf.is_proven(&alpine(), &sha("gone")), "{unreadable}");
        assert!(!shelf.is_proven(&org(), &sha("gone")), "{unreadable}");
        shelf.prove(&org(), "gone").await;
        shelf.clock.advance(LONG);
    }
    sick.cannot_list(&refs.join("nothing"));
    assert_eq!(shelf.swept().await.removed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_proof_of_what_is_being_fetched_stays() {
    let shelf = Shelf::new().await;
    shelf.prove(&alpine(), "coming").await;
    shelf.prove(&org(), "coming").await;
    shelf.clock.advance(LONG);
    let blobs = StoreBlobs(Arc::clone(&shelf.store));
    let id = StageId::of_blob(alpine().upstream.as_str(), &sha("coming"));
    let stage = blobs.stage(&id, None).await.unwrap();
    // Of another upstream it is another fetch.
    assert_eq!(shelf.swept().await.removed, 1);
    assert!(shelf.is_proven(&alpine(), &sha("coming")));
    stage.close(Leave::Nothing);
    drop(stage);
    assert!(blobs.resume(&id).await.unwrap().is_none());
    assert_eq!(shelf.swept().await.removed, 1);
}

#[tokio::test(start_paused = true)]
async fn one_proof_that_cannot_be_removed_or_looked_at_stops_no_other() {
    let sick = Sick::new();
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::<Sick>::clone(&sick);
    let shelf = Shelf::open_over(dir, "", Clock::system(), files).await;
    for number in 0..300 {
        shelf.prove(&alpine(), &format!("gone {number}")).await;
    }
    shelf.clock.advance(LONG);
    let proofs = "data/refs/docker.io/library/alpine/_blobs";
    let proofs = shelf.dir.path().join(proofs);
    sick.cannot_remove(&proofs.join(sha("gone 7").as_str()));
    sick.cannot_look_at(&proofs.join(sha("gone 8").as_str()));
    let expected = Swept {
        looked: 300,
        removed: 298,
        unknown: 1,
        stuck: 1,
    };
    assert_eq!(shelf.swept().await, expected);
    sick.cannot_remove(&proofs.join("nothing"));
    sick.cannot_look_at(&proofs.join("nothing"));
    assert_eq!(shelf.swept().await.removed, 2);
}

#[tokio::test(start_paused = true)]
async fn proofs_that_are_too_many_for_the_memory_are_gone_over_too() {
    let sick = Sick::new();
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::<Sick>::clone(&sick);
    let shelf = Shelf::open_over(dir, "", Clock::system(), files).await;
    for number in 0..300 {
        shelf.prove(&alpine(), &format!("gone {number}")).await;
    }
    shelf.clock.advance(LONG);
    let repository = shelf.dir.path().join("data/refs/docker.io/library/alpine");
    sick.cannot_list_at_once(&repository.join("_blobs"));
    assert_eq!(shelf.swept().await.removed, 300);
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_is_gone_is_not_in_memory_either() -> io::Result<()> {
    let (shelf, world) = (Shelf::new().await, World::new());
    let (digest, key) = (sha("gone"), proof(&alpine(), "gone"));
    shelf.prove(&alpine(), "gone").await;
    world.membership.record(&alpine(), &digest, None).await?;
    world.ctx.records.remove(&key).await?;
    assert!(world.membership.is_proven(&alpine(), &digest).await);
    shelf.clock.advance(LONG);
    let mut sweep = shelf.keeper.sweep();
    sweep.memory = Memory::of(&world.tags, &world.manifests, &world.membership);
    assert_eq!(sweep.round().await.unwrap().removed, 1);
    assert!(!world.membership.is_proven(&alpine(), &digest).await);
    Ok(())
}
