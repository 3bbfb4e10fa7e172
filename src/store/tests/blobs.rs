//! Blobs: staged, committed, opened, counted.

use super::*;

#[tokio::test]
async fn a_committed_blob_is_found_also_by_the_next_life_and_staged_readers_keep_it() {
    let fixture = Fixture::new().await;
    let stage = fixture.stage(Some(5)).await.unwrap();
    stage.write_at(0, b"he").unwrap();
    stage.write_at(2, b"llo").unwrap();
    let digest = Digest::sha256(b"hello");
    assert_eq!(fixture.read(&digest), None);
    fixture.store.commit(&stage, 5, &digest).await.unwrap();
    assert_eq!(fixture.read(&digest).unwrap(), b"hello");
    let mut bytes = [0; 3];
    stage.read_at(2, &mut bytes).unwrap();
    assert_eq!(&bytes, b"llo");
    assert!(stage.write_at(0, b"J").is_err());
    assert!(fixture.store.remove_blob(&digest).await.unwrap());
    stage.file().read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"hel");
    assert_eq!(fixture.read(&digest), None);

    fixture.commit(b"hello").await.unwrap();
    let id = fixture.store.instance_id().to_owned();
    let fixture = fixture.restart().await;
    assert_eq!(fixture.read(&digest).unwrap(), b"hello");
    assert_eq!(fixture.store.instance_id(), id);
}

#[tokio::test]
async fn a_stage_dropped_without_commit_leaves_nothing() {
    let mut fixture = Fixture::new().await;
    let stage = fixture.stage(None).await.unwrap();
    stage.write_at(0, b"hello").unwrap();
    assert_eq!(fixture.partial_files(), 1);
    drop(stage);
    fixture.stop().await;
    assert_eq!(fixture.partial_files(), 0);
}

#[tokio::test]
async fn a_commit_goes_on_when_nobody_waits_for_it() {
    let fixture = Fixture::new().await;
    let stage = fixture.stage(Some(5)).await.unwrap();
    stage.write_at(0, b"hello").unwrap();
    let digest = Digest::sha256(b"hello");
    {
        let mut commit = Box::pin(fixture.store.commit(&stage, 5, &digest));
        assert!(futures_util::poll!(&mut commit).is_pending());
    }
    drop(stage);
    // Everything asked for before is done when this one is.
    fixture.commit(b"another").await.unwrap();
    assert_eq!(fixture.read(&digest).unwrap(), b"hello");
}

#[tokio::test]
async fn of_several_commits_of_one_blob_the_first_has_brought_it() {
    let fixture = Fixture::new().await;
    let digest = Digest::sha256(b"hello");
    let mut stages = Vec::new();
    for _ in 0..3 {
        let stage = fixture.stage(Some(5)).await.unwrap();
        stage.write_at(0, b"hello").unwrap();
        stages.push(stage);
    }
    let mut are_new = Vec::new();
    for stage in &stages[..2] {
        are_new.push(fixture.store.commit(stage, 5, &digest).await.unwrap());
    }
    let used = fixture.store.look_at_blob(&digest).unwrap().unwrap().used;
    assert!(used <= are_new[0].unwrap(), "{used:?}");
    fixture.store.remove_blob(&digest).await.unwrap();
    let again = fixture.store.commit(&stages[2], 5, &digest).await;
    are_new.push(again.unwrap());
    let are_new: Vec<bool> = are_new.iter().map(Option::is_some).collect();
    assert_eq!(are_new, [true, false, true]);
}

#[tokio::test]
async fn commits_of_a_wrong_length_or_an_unverifiable_digest_are_refused() {
    let fixture = Fixture::new().await;
    let stage = fixture.stage(Some(5)).await.unwrap();
    stage.write_at(0, b"hel").unwrap();
    let digest = Digest::sha256(b"hello");
    let error = fixture.store.commit(&stage, 5, &digest).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(fixture.read(&digest), None);
    let other: Digest = "other:abc".parse().unwrap();
    let error = fixture.store.commit(&stage, 3, &other).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(fixture.read(&other), None);
    assert!(!fixture.store.remove_blob(&other).await.unwrap());
    let put = fixture
        .store
        .put_blob(Bytes::from_static(b"hullo"), &digest);
    assert_eq!(put.await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn what_is_stored_staged_or_asked_for_stays_under_the_limit() {
    let fixture = Fixture::with_max_size(Some(100)).await;
    fixture.store.scanned().await;
    let digest = fixture.commit(&[1; 60]).await.unwrap();
    let no_room = fixture.stage(Some(41)).await.unwrap_err();
    assert!(matches!(no_room, RoomError::NoRoom { needed: 41, .. }));
    let large = Digest::sha256(&[2; 41]);
    let put = fixture.store.put_blob(vec![2; 41].into(), &large);
    assert_eq!(put.await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    let stage = fixture.stage(None).await.unwrap();
    stage.write_at(0, &[0; 40]).unwrap();
    let full = stage.write_at(40, &[0]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    drop(stage);
    fixture.store.remove_blob(&digest).await.unwrap();
    fixture.commit(&[1; 100]).await.unwrap();
}

#[tokio::test]
async fn large_blobs_have_space_set_aside_that_does_not_show_in_their_length() {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new().await;
    let content = vec![7; 20 << 20];
    let stage = fixture.stage(Some(20 << 20)).await.unwrap();
    stage.write_at(0, &content[..1000]).unwrap();
    let metadata = stage.file().metadata().unwrap();
    assert_eq!(metadata.len(), 1000);
    // Not every file system can.
    assert!(metadata.blocks() * 512 >= 8 << 20 || metadata.blocks() <= 8);
    stage.write_at(1000, &content[1000..]).unwrap();
    let digest = Digest::sha256(&content);
    fixture
        .store
        .commit(&stage, 20 << 20, &digest)
        .await
        .unwrap();
    assert_eq!(fixture.read(&digest).unwrap(), content);
}

#[tokio::test]
async fn gauges_tell_what_is_stored_after_the_scan_and_follow_every_change() {
    let fixture = Fixture::new().await;
    let digest = fixture.commit(b"hello").await.unwrap();
    fixture.commit(b"hello").await.unwrap();
    let sha512 = Digest::of(crate::oci::Algorithm::Sha512, b"other").unwrap();
    let put = fixture
        .store
        .put_blob(Bytes::from_static(b"other"), &sha512);
    put.await.unwrap();
    let stray = fixture.path(&digest).with_file_name("stray");
    fs::write(stray, "not ours").unwrap();

    let fixture = fixture.restart().await;
    fixture.store.scanned().await;
    let gauges = |fixture: &Fixture| {
        let cache = &fixture.metrics.cache;
        (cache.bytes.get(), cache.blobs.get())
    };
    assert_eq!(gauges(&fixture), (10, 2));
    assert!(fixture.store.remove_blob(&digest).await.unwrap());
    assert!(!fixture.store.remove_blob(&digest).await.unwrap());
    assert_eq!(gauges(&fixture), (5, 1));
    fixture.commit(b"hello again").await.unwrap();
    assert_eq!(gauges(&fixture), (16, 2));
    let totals = fixture.store.totals();
    assert_eq!((totals.bytes, totals.blobs), (16, 2));
}

#[tokio::test]
async fn the_last_use_is_kept_in_the_files_mtime() {
    let mut fixture = Fixture::new().await;
    let digest = fixture.commit(b"hello").await.unwrap();
    fixture.clock.advance(Duration::from_hours(1));
    assert!(fixture.read(&digest).is_some());
    fixture.stop().await;
    let modified = fs::metadata(fixture.path(&digest))
        .unwrap()
        .modified()
        .unwrap();
    let ahead = modified.duration_since(SystemTime::now()).unwrap();
    assert!(ahead > Duration::from_mins(55), "{ahead:?}");
}

#[tokio::test]
async fn what_is_not_a_blob_in_a_blobs_place_is_a_miss_and_a_commit_replaces_it() {
    let fixture = Fixture::new().await;
    let outside = fixture.dir.path().join("outside");
    fs::write(&outside, b"hello").unwrap();
    let digest = fixture.commit(b"hello").await.unwrap();
    let path = fixture.path(&digest);
    for put in [
        (|path, outside| symlink(outside, path).unwrap()) as fn(&Path, &Path),
        |path, _| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
                .unwrap();
        },
        |path, _| {
            drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        },
        |path, _| fs::write(path, b"").unwrap(),
        |path, _| fs::write(path, b"hel").unwrap(),
    ] {
        fs::remove_file(&path).unwrap();
        put(&path, &outside);
        assert_eq!(fixture.read(&digest), None);
        fixture.commit(b"hello").await.unwrap();
        assert_eq!(fixture.read(&digest).unwrap(), b"hello");
    }
    assert_eq!(fs::read(&outside).unwrap(), b"hello");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(fixture.read(&digest), None);
    let error = fixture.commit(b"hello").await.unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    fixture.commit(b"other").await.unwrap();
}

#[tokio::test]
async fn a_directory_that_somebody_removed_heals() {
    let fixture = Fixture::new().await;
    let digest = fixture.commit(b"hello").await.unwrap();
    fs::remove_dir_all(fixture.store.layout.blobs_dir()).unwrap();
    assert_eq!(fixture.read(&digest), None);
    assert!(fixture.commit(b"hello").await.is_err());
    fixture.commit(b"hello").await.unwrap();
    assert_eq!(fixture.read(&digest).unwrap(), b"hello");
}

#[tokio::test]
async fn a_stopped_store_refuses_changes_and_still_reads() {
    let mut fixture = Fixture::new().await;
    let digest = fixture.commit(b"hello").await.unwrap();
    let stage = fixture.stage(None).await.unwrap();
    fixture.stop().await;
    assert!(fixture.store.commit(&stage, 0, &digest).await.is_err());
    drop(stage);
    assert_eq!(fixture.partial_files(), 0);
    assert_eq!(fixture.read(&digest).unwrap(), b"hello");
}

#[tokio::test]
async fn a_blob_that_took_the_place_of_a_cut_one_is_not_discarded_for_it() {
    let fixture = Fixture::new().await;
    let bytes = content(0..5000);
    let digest = fixture.commit(&bytes).await.unwrap();
    let store = &fixture.store;
    // Somebody saw it with 100 bytes, and it was fetched anew before they say so.
    assert!(!store.discard_blob(&digest, 100).await.unwrap());
    assert_eq!(fixture.read(&digest).unwrap(), bytes);
    assert!(store.discard_blob(&digest, 5000).await.unwrap());
    assert!(fixture.read(&digest).is_none());
}
