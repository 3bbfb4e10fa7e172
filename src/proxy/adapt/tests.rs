//! The disk keeps the contracts of those who use it.

use std::sync::Arc;
use std::time::Duration;

use super::{StoreBlobs, StoreRecords};
use crate::config::MinFree;
use crate::flight::conformance::blobs_conform;
use crate::flight::ports::Blobs;
use crate::proxy::testing::records_conform;
use crate::runtime::{Clock, Tasks};
use crate::store::{Disk, Store, StoreOptions};

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
async fn records_on_disk_keep_the_contract() {
    let (_dir, store) = store().await;
    records_conform(&StoreRecords(store)).await;
}
