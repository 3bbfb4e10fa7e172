//! A blob in a data directory: finding it, and reading it as it is sent.

use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use layby::config::MinFree;
use layby::oci::Digest;
use layby::runtime::{Clock, Tasks};
use layby::store::{Disk, Store, StoreOptions};
use layby::telemetry::Metrics;
use tokio::runtime::Runtime;

const SIZE: usize = 1 << 20;

/// Bytes that are read at once, as for sending through user space.
const PIECE: usize = 32 << 10;

/// Opens a stored blob of 1 MiB, and reads it from the page cache.
pub(crate) fn bench(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let content = vec![7; SIZE];
    let digest = Digest::sha256(&content);
    let tasks = Tasks::new();
    let store = runtime.block_on(async {
        let options = StoreOptions {
            data_dir: folder.path().to_owned(),
            max_size: None,
            min_free: MinFree::Bytes(0),
            max_age: None,
            evicts: false,
            lock_wait: Duration::ZERO,
            offline: false,
        };
        let (disk, metrics) = (Arc::new(Disk), Arc::new(Metrics::default()));
        let store = Store::open(options, disk, Clock::system(), metrics, tasks.clone())
            .await
            .expect("a store");
        store
            .put_blob(content.into(), &digest)
            .await
            .expect("a blob");
        store
    });
    c.bench_function("open a stored blob", |b| {
        b.iter(|| store.open_blob(black_box(&digest)));
    });
    let mut group = c.benchmark_group("read 1 MiB of a stored blob");
    group.throughput(Throughput::Bytes(SIZE as u64));
    group.bench_function("32 KiB at once", |b| {
        let mut buffer = vec![0; PIECE];
        b.iter(|| {
            let blob = store.open_blob(&digest).ok().flatten().expect("the blob");
            for offset in (0..SIZE).step_by(PIECE) {
                let read = blob.file.read_exact_at(&mut buffer, offset as u64);
                read.expect("the page cache does not fail");
            }
            black_box(&buffer);
        });
    });
    group.finish();
    drop(store);
    tasks.stop();
    runtime.block_on(tasks.drained(Duration::from_secs(5)));
}
