use std::fs;

use futures_util::StreamExt as _;

use super::*;
use crate::proxy::admin::model::{Finding, FindingKind, VerifyEvent, VerifyReport};
use crate::store::testing::Sick;

/// Verifies to the end.
async fn verify(shelf: &Shelf, image: Option<&str>) -> (Vec<Finding>, VerifyReport) {
    let mut events = shelf.keeper.verify(image).await.unwrap();
    let mut findings = Vec::new();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            VerifyEvent::Progress { .. } => {}
            VerifyEvent::Found(finding) => findings.push(finding),
            VerifyEvent::Failed { message } => panic!("{message}"),
            VerifyEvent::Done(report) => {
                assert!(events.next().await.is_none());
                return (findings, report);
            }
        }
    }
    panic!("it ended without a report");
}

async fn stocked() -> (Shelf, Picture) {
    let shelf = Shelf::new().await;
    let picture = Picture::new("a", &["first layer", "second layer"]);
    shelf.image(&alpine(), "1", &picture).await;
    (shelf, picture)
}

/// The one finding after something was done to a healthy directory.
async fn only(shelf: &Shelf) -> Finding {
    let (findings, report) = verify(shelf, None).await;
    let [finding] = <[Finding; 1]>::try_from(findings).unwrap();
    assert_eq!(report.is_whole(), !finding.kind.is_damage());
    finding
}

#[tokio::test]
async fn a_healthy_directory_has_nothing_to_report() {
    let (shelf, picture) = stocked().await;
    let (findings, report) = verify(&shelf, None).await;
    assert_eq!(findings, []);
    let whole = VerifyReport {
        blobs: 4,
        sound: 4,
        bytes: picture.len(),
        ..VerifyReport::default()
    };
    assert_eq!(report, whole);
}

#[tokio::test]
async fn a_flipped_byte_moves_the_blob_aside_and_the_next_run_misses_it() {
    let (shelf, _) = stocked().await;
    let digest = sha("first layer");
    fs::write(shelf.path(&digest), "First layer").unwrap();
    let finding = only(&shelf).await;
    assert_eq!(finding.kind, FindingKind::Damaged);
    assert_eq!(finding.digest.as_deref(), Some(digest.as_str()));
    assert!(!shelf.has(&digest));
    let name = format!("sha256-{}", digest.encoded());
    let aside = shelf.dir.path().join("data/damaged").join(&name);
    assert!(finding.done.contains(&name), "{finding:?}");
    assert_eq!(fs::read_to_string(aside).unwrap(), "First layer");
    assert_eq!(shelf.metrics.cache.damaged.get(), 1);
    assert_eq!(shelf.store.totals().blobs, 3);
    let missing = only(&shelf).await;
    assert_eq!(missing.kind, FindingKind::Missing);
    assert_eq!(missing.place, "docker.io/library/alpine:1");
    // What is fetched again may be damaged again; the last copy is kept.
    shelf.blob(&alpine(), "first layer").await;
    fs::write(shelf.path(&digest), "FIRST layer").unwrap();
    assert!(only(&shelf).await.done.contains(&name));
    let aside = shelf.dir.path().join("data/damaged").join(&name);
    assert_eq!(fs::read_to_string(aside).unwrap(), "FIRST layer");
}

#[tokio::test]
async fn a_cut_and_an_emptied_file_are_told_apart_also_after_a_restart() {
    for restart in [false, true] {
        let (mut shelf, picture) = stocked().await;
        for (text, left, kind) in [
            ("first layer", "first", FindingKind::Truncated),
            ("second layer", "", FindingKind::Emptied),
            (&picture.manifest, "{}", FindingKind::Truncated),
        ] {
            fs::write(shelf.path(&sha(text)), left).unwrap();
            if restart {
                shelf = shelf.reopened().await;
            }
            let (findings, _) = verify(&shelf, None).await;
            let kinds: Vec<_> = findings
                .iter()
                .map(|finding| finding.kind)
                .filter(|kind| *kind != FindingKind::Missing)
                .collect();
            assert_eq!(kinds, [kind], "{findings:?}");
        }
    }
}

#[tokio::test]
async fn a_removed_file_is_missed() {
    let (shelf, _) = stocked().await;
    fs::remove_file(shelf.path(&sha("first layer"))).unwrap();
    let finding = only(&shelf).await;
    assert_eq!(finding.kind, FindingKind::Missing);
    assert_eq!(finding.digest, Some(sha("first layer").to_string()));
}

#[tokio::test]
async fn foreign_files_are_reported_wherever_they_are_and_left_alone() {
    let (shelf, _) = stocked().await;
    let root = shelf.dir.path().join("data");
    let shard = shelf.path(&sha("first layer"));
    let places = [
        root.join("notes.txt"),
        root.join("blobs/readme"),
        root.join("blobs/sha256/zz"),
        shard.with_file_name("x"),
        root.join("refs/docker.io/library/FILE"),
    ];
    for path in &places {
        fs::write(path, "mine").unwrap();
    }
    let (findings, report) = verify(&shelf, None).await;
    let mut reported: Vec<_> = findings.iter().map(|f| PathBuf::from(&f.place)).collect();
    let mut expected = places.to_vec();
    reported.sort();
    expected.sort();
    assert_eq!(reported, expected);
    assert_eq!(report.foreign, 5);
    assert!(places.iter().all(|path| fs::read(path).unwrap() == b"mine"));
}

#[tokio::test]
async fn what_is_no_file_in_a_blobs_place_is_foreign_and_the_blob_missing() {
    let (shelf, _) = stocked().await;
    let (path, digest) = (shelf.path(&sha("first layer")), sha("first layer"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let (findings, report) = verify(&shelf, None).await;
    let kinds: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(
        kinds,
        [FindingKind::Foreign, FindingKind::Missing],
        "{findings:?}"
    );
    assert_eq!(findings[1].digest, Some(digest.to_string()));
    assert_eq!(report.sound, 3);
}

#[tokio::test]
async fn a_record_that_cannot_be_understood_is_removed() {
    let (shelf, picture) = stocked().await;
    let tag = alpine().key(RefKind::Tag("1".parse().unwrap()));
    shelf.store.put_ref(&tag, b"[]".to_vec()).await.unwrap();
    let finding = only(&shelf).await;
    assert_eq!(finding.kind, FindingKind::Record);
    assert!(!shelf.store.has_ref(&tag).unwrap());
    let manifest = alpine().key(RefKind::Manifest(picture.digest()));
    shelf.store.put_ref(&manifest, Vec::new()).await.unwrap();
    assert_eq!(only(&shelf).await.kind, FindingKind::Record);
    assert!(!shelf.store.has_ref(&manifest).unwrap());
}

#[tokio::test]
async fn one_image_can_be_verified_alone() {
    let (shelf, _) = stocked().await;
    let other = Picture::new("b", &["another"]);
    shelf.image(&alpine(), "2", &other).await;
    fs::write(shelf.path(&sha("first layer")), "x").unwrap();
    let (findings, report) = verify(&shelf, Some("alpine:2")).await;
    assert_eq!((findings.len(), report.sound), (0, 3));
    let (findings, _) = verify(&shelf, Some("alpine:1")).await;
    assert_eq!(findings[0].kind, FindingKind::Truncated);
    let mut events = shelf.keeper.verify(Some("alpine:9")).await.unwrap();
    let last = events.next().await.unwrap().unwrap();
    assert!(matches!(last, VerifyEvent::Failed { message } if message.contains("alpine:9")));
}

#[tokio::test]
async fn one_long_action_runs_at_a_time_and_ends_when_nobody_listens() {
    let (shelf, _) = stocked().await;
    // More findings than may wait for whoever listens.
    for number in 0..200 {
        fs::write(shelf.dir.path().join(format!("data/foreign-{number}")), "").unwrap();
    }
    let events = shelf.keeper.verify(None).await.unwrap();
    let busy = shelf.keeper.remove("alpine:1", false).await;
    assert!(matches!(busy, Err(AdminError::Busy)), "{busy:?}");
    drop(events);
    while shelf.keeper.remove("alpine:1", true).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_no_directory_in_place_of_records_is_told_and_the_rest_is_verified() {
    let (shelf, _) = stocked().await;
    let other = Picture::new("b", &["another"]);
    let web = place("docker.io", "library/web");
    shelf.image(&web, "2", &other).await;
    let records = shelf.dir.path().join("data/refs/docker.io/library/alpine");
    fs::remove_dir_all(&records).unwrap();
    fs::write(&records, "a file").unwrap();
    fs::remove_file(shelf.path(&sha("another"))).unwrap();
    let (findings, report) = verify(&shelf, None).await;
    let kinds: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::Foreign, FindingKind::Missing]);
    assert_eq!(findings[0].place, records.display().to_string());
    assert_eq!(report.sound, 6);
}

#[tokio::test]
async fn a_blob_that_can_be_opened_but_not_read_is_moved_aside() {
    let sick = Sick::new();
    let files = Arc::<Sick>::clone(&sick);
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open_over(dir, "", Clock::system(), files).await;
    let picture = Picture::new("a", &["first layer", "second layer"]);
    shelf.image(&alpine(), "1", &picture).await;
    let digest = sha("first layer");
    sick.cannot_read(&shelf.path(&digest));
    let finding = only(&shelf).await;
    assert_eq!(finding.kind, FindingKind::Unreadable);
    assert!(finding.done.starts_with("moved to "), "{finding:?}");
    assert!(!shelf.has(&digest));
    shelf.blob(&alpine(), "first layer").await;
    let (findings, _) = verify(&shelf, None).await;
    assert_eq!(findings, []);
}

#[tokio::test]
async fn blobs_of_one_algorithm_that_cannot_be_listed_keep_no_others_from_being_verified() {
    let sick = Sick::new();
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::<Sick>::clone(&sick);
    let shelf = Shelf::open_over(dir, "", Clock::system(), files).await;
    shelf.blob(&alpine(), "a").await;
    let unlisted = shelf.dir.path().join("data/blobs/sha512");
    fs::create_dir_all(&unlisted).unwrap();
    sick.cannot_list(&unlisted);
    let (findings, report) = verify(&shelf, None).await;
    let [finding] = <[Finding; 1]>::try_from(findings).unwrap();
    assert_eq!(finding.kind, FindingKind::Unreadable);
    assert_eq!((report.blobs, report.sound), (1, 1));
}
