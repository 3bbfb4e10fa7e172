//! The disk keeps the contracts of those who use it.

use std::sync::Arc;
use std::time::Duration;

use super::store::{DiskBlob, DiskStage};
use super::{StoreBlobs, StoreRecords};
use crate::config::MinFree;
use crate::flight::conformance::blobs_conform;
use crate::flight::ports::{Blob, Blobs, Leave, Stage};
use crate::oci::Digest;
use crate::proxy::ports::Records as _;
use crate::proxy::testing::records_conform;
use crate::runtime::{Clock, Tasks};
use crate::store::{Disk, StageKey, Store, StoreOptions};

async fn store() -> (tempfile::TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        data_dir: dir.path().join("data"),
        max_size: None,
        min_free: MinFree::Bytes(0),
        max_age: None,
        evicts: false,
        lock_wait: Duration::ZERO,
        offline: false,
    };
    let (clock, tasks) = (Clock::system(), Tasks::new());
    let store = Store::open(options, Arc::new(Disk), clock, Arc::default(), tasks);
    (dir, store.await.unwrap())
}

async fn disk() -> (tempfile::TempDir, Arc<dyn Blobs>) {
    let (dir, store) = store().await;
    (dir, Arc::new(StoreBlobs(store)))
}

blobs_conform!(disk);

#[tokio::test]
async fn a_blob_counts_as_read_as_long_as_a_part_of_it_is_on_its_way() {
    let (_dir, store) = store().await;
    let digest = Digest::sha256(b"hello");
    store.put_blob(b"hello"[..].into(), &digest).await.unwrap();
    let stored = store.open_blob(&digest).unwrap().unwrap();
    let reading = Arc::downgrade(&stored.hold().unwrap());
    let blob: Arc<dyn Blob> = Arc::new(DiskBlob(stored));
    let part = blob.read(0..5).await.unwrap();
    drop(blob);
    assert!(reading.upgrade().is_some());
    drop(part);
    assert!(reading.upgrade().is_none());
}

#[tokio::test]
async fn a_discarded_stage_takes_room_as_long_as_a_part_of_it_is_on_its_way() {
    let (_dir, store) = store().await;
    let key = StageKey::parse(Digest::sha256(b"a").encoded()).unwrap();
    let staged = store.stage(&key, Some(5)).await.unwrap();
    staged.write_at(0, b"hello").unwrap();
    let space = Arc::downgrade(&staged.hold());
    let stage: Arc<dyn Stage> = Arc::new(DiskStage(staged));
    let part = stage.chunk(0..5);
    stage.close(Leave::Nothing);
    drop(stage);
    // The next to hold the id is let in once the chore is done.
    drop(store.stage(&key, Some(5)).await.unwrap());
    assert!(space.upgrade().is_some());
    drop(part);
    assert!(space.upgrade().is_none());
}

#[tokio::test]
async fn records_on_disk_keep_the_contract() {
    let (_dir, store) = store().await;
    records_conform(&StoreRecords(store)).await;
}

#[tokio::test]
async fn looking_for_a_blob_is_no_use_of_it_and_what_was_cut_is_not_there() {
    let (dir, store) = store().await;
    let digest = Digest::sha256(b"content");
    let bytes = bytes::Bytes::from_static(b"content");
    store.put_blob(bytes, &digest).await.unwrap();
    let encoded = digest.encoded();
    let path = dir.path().join("data/blobs/sha256").join(&encoded[..2]);
    let records = StoreRecords(Arc::clone(&store));
    let before = store.look_at_blob(&digest).unwrap();
    assert_eq!(records.blob_len(&digest).await.unwrap(), Some(7));
    assert_eq!(store.look_at_blob(&digest).unwrap(), before);
    for cut in ["conten", ""] {
        std::fs::write(path.join(encoded), cut).unwrap();
        assert_eq!(records.blob_len(&digest).await.unwrap(), None);
    }
}
