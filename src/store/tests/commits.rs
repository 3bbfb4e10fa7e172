//! Commits of what the disk is slow to take.

use super::*;
use crate::store::testing::Sick;

/// More than is synced together with other commits.
const LARGE: usize = 9 << 20;

/// A stage that is whole, and what it will be.
async fn staged(fixture: &Fixture) -> (StagedBlob, Digest) {
    let content = vec![7; LARGE];
    let stage = fixture.stage(Some(LARGE as u64)).await.unwrap();
    stage.write_at(0, &content).unwrap();
    (stage, Digest::sha256(&content))
}

#[tokio::test]
async fn a_large_commit_that_waits_for_the_disk_holds_up_no_other() {
    let sick = Sick::new();
    let fixture = Fixture::on(Arc::clone(&sick) as _).await;
    let (stage, digest) = staged(&fixture).await;
    sick.holds_syncs_of(LARGE as u64);
    let mut commit = Box::pin(fixture.store.commit(&stage, LARGE as u64, &digest));
    assert!(futures_util::poll!(&mut commit).is_pending());
    for content in [b"one", b"two"] {
        let other = fixture.commit(content);
        let in_time = tokio::time::timeout(Duration::from_secs(20), other).await;
        in_time.expect("the others go on").unwrap();
    }
    assert!(futures_util::poll!(&mut commit).is_pending());
    assert_eq!(fixture.read(&digest), None);
    sick.syncs();
    commit.await.unwrap();
    assert_eq!(fixture.read(&digest).map(|bytes| bytes.len()), Some(LARGE));
}

#[tokio::test]
async fn a_large_commit_goes_on_when_nobody_waits_for_it_and_the_store_is_told_to_stop() {
    let sick = Sick::new();
    let mut fixture = Fixture::on(Arc::clone(&sick) as _).await;
    let (stage, digest) = staged(&fixture).await;
    sick.holds_syncs_of(LARGE as u64);
    {
        let mut commit = Box::pin(fixture.store.commit(&stage, LARGE as u64, &digest));
        assert!(futures_util::poll!(&mut commit).is_pending());
    }
    drop(stage);
    fixture.tasks.stop();
    tokio::task::yield_now().await;
    sick.syncs();
    fixture.stop().await;
    assert_eq!(fixture.partial_files(), 0);
    assert_eq!(fixture.read(&digest).map(|bytes| bytes.len()), Some(LARGE));
}

#[tokio::test]
async fn a_large_commit_that_the_disk_fails_says_so_and_takes_nobody_along() {
    let sick = Sick::new();
    let fixture = Fixture::on(Arc::clone(&sick) as _).await;
    let (stage, digest) = staged(&fixture).await;
    sick.cannot_sync(LARGE as u64);
    let (failed, other) = tokio::join!(
        fixture.store.commit(&stage, LARGE as u64, &digest),
        fixture.commit(b"another")
    );
    let told = failed.unwrap_err().to_string();
    assert!(told.contains("cannot sync"), "{told}");
    assert!(fixture.read(&other.unwrap()).is_some());
    assert_eq!(fixture.read(&digest), None);
    // What the disk has of it is unknown for good.
    sick.syncs();
    let again = fixture.store.commit(&stage, LARGE as u64, &digest).await;
    assert!(again.unwrap_err().to_string().contains("cannot trust"));
}

#[tokio::test]
async fn commits_are_counted_before_they_return() {
    let fixture = Fixture::new().await;
    let before = fixture.store.commits();
    let (stage, digest) = staged(&fixture).await;
    assert_eq!(fixture.store.commits(), before);
    fixture
        .store
        .commit(&stage, LARGE as u64, &digest)
        .await
        .unwrap();
    assert_eq!(fixture.store.commits(), before + 1);
    fixture.commit(b"another").await.unwrap();
    assert_eq!(fixture.store.commits(), before + 2);
}

#[tokio::test]
async fn memory_says_that_a_blob_is_not_there_only_when_it_knows_all_of_them() {
    let fixture = Fixture::new().await;
    fixture.store.scanned().await;
    let digest = Digest::sha256(b"blob");
    assert!(fixture.store.lacks_blob(&digest));
    assert!(!fixture.store.lacks_blob(&"other:abc".parse().unwrap()));
    fixture.commit(b"blob").await.unwrap();
    assert!(!fixture.store.lacks_blob(&digest));
    let fixture = fixture.restart().await;
    // The count has not begun: this test's thread has not waited for anything since.
    assert!(!fixture.store.lacks_blob(&Digest::sha256(b"none")));
    fixture.store.scanned().await;
    assert!(!fixture.store.lacks_blob(&digest));
    assert!(fixture.store.lacks_blob(&Digest::sha256(b"none")));
    assert!(fixture.store.remove_blob(&digest).await.unwrap());
    assert!(fixture.store.lacks_blob(&digest));
}

#[tokio::test]
async fn memory_never_says_that_a_blob_is_not_there_where_a_directory_cannot_be_listed() {
    let sick = Sick::new();
    let dir = tempfile::tempdir().unwrap();
    let options = options_in(dir.path(), None);
    let shard = Layout::new(options.data_dir.clone()).blob(&Digest::sha256(b"blob"));
    sick.cannot_list(shard.unwrap().parent().unwrap());
    let (clock, metrics, tasks) = (Clock::system(), Arc::default(), Tasks::new());
    let store = open_with(options.clone(), &clock, &metrics, &tasks).await;
    store
        .unwrap()
        .put_blob("blob".into(), &Digest::sha256(b"blob"))
        .await
        .unwrap();
    tasks.stop();
    assert!(tasks.drained(Duration::from_mins(1)).await);
    let tasks = Tasks::new();
    let store = open_on(Arc::clone(&sick) as _, options, &clock, &metrics, &tasks);
    let store = store.await.unwrap();
    store.scanned().await;
    for content in ["blob", "none"] {
        let digest = Digest::sha256(content.as_bytes());
        assert!(!store.lacks_blob(&digest), "{content}");
    }
}
