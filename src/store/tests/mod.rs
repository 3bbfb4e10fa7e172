//! What the store does on a healthy disk, and with things in its directory that do not belong there. What it does when
//! the power goes is in `tests/model/`.

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::{FileExt, symlink};
use std::time::SystemTime;

use super::*;

mod admin;
mod blobs;
mod commits;
mod evict;
mod files;
mod opening;
mod orphans;
mod records;
mod resume;
mod room;

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
        Self::open(Arc::new(Disk), max_size).await
    }

    async fn on(files: Arc<dyn Files>) -> Self {
        Self::open(files, None).await
    }

    async fn open(files: Arc<dyn Files>, max_size: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, metrics, tasks) = (Clock::system(), Arc::default(), Tasks::new());
        let options = options_in(dir.path(), max_size);
        let store = open_on(files, options, &clock, &metrics, &tasks)
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

    /// Ends this store and opens the next, which may hold `max_size` bytes.
    async fn restart_with(mut self, max_size: Option<u64>) -> Self {
        self.stop().await;
        let (tasks, metrics) = (Tasks::new(), Arc::default());
        let store = open_in(self.dir.path(), max_size, &self.clock, &metrics, &tasks).await;
        Self {
            store: store.unwrap(),
            metrics,
            tasks,
            ..self
        }
    }

    /// Ends this store and opens the next on the same directory.
    async fn restart(self) -> Self {
        self.restart_with(None).await
    }

    async fn stop(&mut self) {
        self.tasks.stop();
        assert!(self.tasks.drained(Duration::from_mins(1)).await);
    }

    /// A stage under a name of its own.
    async fn stage(&self, len: Option<u64>) -> Result<StagedBlob, RoomError> {
        let name = fastrand::u128(..).to_le_bytes();
        self.store.stage(&stage_key(&name), len).await
    }

    /// Leaves a partial of `len` bytes of [`content`], whole but for its last byte.
    async fn leave(&self, name: &[u8], len: u64) {
        let stage = self.store.stage(&stage_key(name), Some(len)).await.unwrap();
        stage.write_at(0, &content(0..len - 1)).unwrap();
        drop(stage);
        self.settled(name).await;
    }

    /// Waits until nobody holds a stage.
    async fn settled(&self, name: &[u8]) {
        drop(self.store.partials.shelf.take(stage_key(name)).await);
    }

    async fn resume(&self, name: &[u8]) -> Option<StagedBlob> {
        self.store.resume(&stage_key(name)).await.unwrap()
    }

    async fn commit(&self, content: &[u8]) -> io::Result<Digest> {
        let len = u64::try_from(content.len()).unwrap();
        let stage = self.stage(Some(len)).await?;
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
        self.partial_names().count()
    }

    /// Files of blobs on their way in.
    fn stages(&self) -> usize {
        let is_log = |name: &OsString| Path::new(name).extension().is_some();
        self.partial_names().filter(|name| !is_log(name)).count()
    }

    fn partial_names(&self) -> impl Iterator<Item = OsString> {
        let entries = fs::read_dir(self.store.layout.partial_dir()).unwrap();
        entries.map(|entry| entry.unwrap().file_name())
    }
}

async fn open_in(
    dir: &Path,
    max_size: Option<u64>,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
) -> Result<Arc<Store>, OpenError> {
    open_with(options_in(dir, max_size), clock, metrics, tasks).await
}

fn options_in(dir: &Path, max_size: Option<u64>) -> StoreOptions {
    StoreOptions {
        data_dir: dir.join("var/data"),
        max_size,
        min_free: MinFree::Bytes(0),
        max_age: None,
        evicts: true,
        lock_wait: Duration::from_secs(30),
        offline: false,
    }
}

async fn open_with(
    options: StoreOptions,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
) -> Result<Arc<Store>, OpenError> {
    open_on(Arc::new(Disk), options, clock, metrics, tasks).await
}

async fn open_on(
    files: Arc<dyn Files>,
    options: StoreOptions,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
) -> Result<Arc<Store>, OpenError> {
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

/// Bytes that tell where they belong.
fn content(range: Range<u64>) -> Vec<u8> {
    range
        .map(|at| (at * 0x9e37_79b9).to_le_bytes()[3])
        .collect()
}

/// One range and no other.
fn only(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

/// The key that belongs to `name`.
fn stage_key(name: &[u8]) -> StageKey {
    StageKey::parse(Digest::sha256(name).encoded()).unwrap()
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
