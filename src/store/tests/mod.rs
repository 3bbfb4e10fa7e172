//! What the store does on a healthy disk, and with things in its directory that do not belong there. What it does when
//! the power goes is in `tests/model/`.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::time::SystemTime;

use super::*;

mod blobs;
mod opening;
mod records;

/// A store in a directory of its own.
struct Fixture {
    dir: tempfile::TempDir,
    clock: Clock,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    store: Arc<Store>,
}

impl Fixture {
    async fn new() -> Self {
        Self::with_max_size(None).await
    }

    async fn with_max_size(max_size: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, metrics, tasks) = (Clock::system(), Arc::default(), Tasks::new());
        let store = open_in(dir.path(), max_size, &clock, &metrics, &tasks)
            .await
            .unwrap();
        Self {
            dir,
            clock,
            metrics,
            tasks,
            store,
        }
    }

    /// Ends this store and opens the next on the same directory.
    async fn restart(mut self) -> Self {
        self.stop().await;
        let (tasks, metrics) = (Tasks::new(), Arc::default());
        let store = open_in(self.dir.path(), None, &self.clock, &metrics, &tasks).await;
        Self {
            store: store.unwrap(),
            metrics,
            tasks,
            ..self
        }
    }

    async fn stop(&mut self) {
        self.tasks.stop();
        assert!(self.tasks.drained(Duration::from_mins(1)).await);
    }

    async fn commit(&self, content: &[u8]) -> io::Result<Digest> {
        let len = u64::try_from(content.len()).unwrap();
        let stage = self.store.stage(Some(len))?;
        stage.write_at(0, content)?;
        let digest = Digest::sha256(content);
        self.store.commit(&stage, len, &digest).await?;
        Ok(digest)
    }

    fn read(&self, digest: &Digest) -> Option<Vec<u8>> {
        let blob = self.store.open_blob(digest).unwrap()?;
        let mut bytes = vec![0; usize::try_from(blob.len).unwrap()];
        blob.file.read_exact_at(&mut bytes, 0).unwrap();
        Some(bytes)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.store.layout.blob(digest).unwrap()
    }

    fn partial_files(&self) -> usize {
        fs::read_dir(self.store.layout.partial_dir())
            .unwrap()
            .count()
    }
}

async fn open_in(
    dir: &Path,
    max_size: Option<u64>,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
) -> Result<Arc<Store>, OpenError> {
    let options = StoreOptions {
        data_dir: dir.join("var/data"),
        max_size,
        min_free: MinFree::Bytes(0),
        lock_wait: Duration::from_secs(30),
    };
    let files = Arc::new(Disk);
    Store::open(
        options,
        files,
        clock.clone(),
        Arc::clone(metrics),
        tasks.clone(),
    )
    .await
}

/// Opens a second time, for its error.
async fn error_of_open(dir: &Path) -> OpenError {
    let (clock, metrics, tasks) = (Clock::system(), Arc::default(), Tasks::new());
    open_in(dir, None, &clock, &metrics, &tasks)
        .await
        .unwrap_err()
}

fn key(repository: &str, kind: RefKind) -> RefKey {
    RefKey {
        upstream: "registry.test:5000".parse().unwrap(),
        repository: repository.parse().unwrap(),
        kind,
    }
}

fn tag(repository: &str, tag: &str) -> RefKey {
    key(repository, RefKind::Tag(tag.parse().unwrap()))
}
