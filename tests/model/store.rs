//! A store on a disk that forgets, and what the tests of it share.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use layby::config::MinFree;
use layby::oci::{Algorithm, Digest};
use layby::runtime::{Clock, Tasks};
use layby::store::{OpenError, RefKey, RefKind, StageKey, StagedBlob, Store, StoreOptions};
use layby::telemetry::Metrics;

use crate::forgetful::{Forgetful, Luck};

/// A store in one of its lives.
pub(crate) struct Life {
    pub(crate) files: Arc<Forgetful>,
    pub(crate) store: Arc<Store>,
    tasks: Tasks,
}

impl Life {
    /// Opens the store on what is left of the last life.
    pub(crate) async fn start(files: Arc<Forgetful>) -> Result<Self, OpenError> {
        let tasks = Tasks::new();
        let store = Store::open(
            StoreOptions {
                data_dir: files.data_dir(),
                max_size: None,
                min_free: MinFree::Bytes(0),
                max_age: None,
                evicts: false,
                lock_wait: Duration::from_secs(30),
                offline: false,
            },
            Arc::<Forgetful>::clone(&files),
            Clock::system(),
            Arc::<Metrics>::default(),
            tasks.clone(),
        )
        .await?;
        Ok(Self {
            files,
            store,
            tasks,
        })
    }

    /// The process ends and another begins; nothing is forgotten yet.
    pub(crate) async fn restart(self) -> Self {
        let files = self.end().await;
        files.power_on();
        Self::start(files).await.unwrap()
    }

    /// The process ends in good order.
    pub(crate) async fn end(self) -> Arc<Forgetful> {
        self.tasks.stop();
        drop(self.store);
        assert!(self.tasks.drained(Duration::from_mins(1)).await);
        self.files
    }

    /// The power goes. What is left is for the next life.
    pub(crate) async fn power_loss(self, luck: Luck) -> Arc<Forgetful> {
        let next = self.files.power_loss(luck);
        self.tasks.stop();
        drop(self.store);
        assert!(self.tasks.drained(Duration::from_mins(1)).await);
        next
    }

    /// Stages `content` in two writes, under a name of its own.
    pub(crate) async fn stage(&self, content: &[u8]) -> io::Result<StagedBlob> {
        let name = self.files.changes().to_le_bytes();
        let len = u64::try_from(content.len()).ok();
        let stage = self.store.stage(&stage_key(&name), len).await?;
        let (first, second) = content.split_at(content.len() / 2);
        stage.write_at(0, first)?;
        stage.write_at(u64::try_from(first.len()).unwrap(), second)?;
        Ok(stage)
    }

    /// Stages and commits `content`.
    pub(crate) async fn commit(&self, content: &[u8]) -> io::Result<()> {
        let stage = self.stage(content).await?;
        let len = u64::try_from(content.len()).unwrap();
        self.store
            .commit(&stage, len, &Digest::sha256(content))
            .await
            .map(|_| ())
    }

    /// The content of a blob.
    pub(crate) fn read(&self, digest: &Digest) -> Option<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let blob = self.store.open_blob(digest).unwrap()?;
        let mut bytes = vec![0; usize::try_from(blob.len).unwrap()];
        blob.file.read_exact_at(&mut bytes, 0).unwrap();
        Some(bytes)
    }
}

/// The key that belongs to `name`.
pub(crate) fn stage_key(name: &[u8]) -> StageKey {
    StageKey::parse(Digest::sha256(name).encoded()).unwrap()
}

/// Every file under `blobs/`, by digest, whatever the store would say of it.
pub(crate) fn blobs_on_disk(data_dir: &Path) -> BTreeMap<Digest, Vec<u8>> {
    let mut found = BTreeMap::new();
    let list = |dir: &Path| -> Vec<_> {
        std::fs::read_dir(dir)
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default()
    };
    for algorithm in list(&data_dir.join("blobs")) {
        for file in list(&algorithm).iter().flat_map(|shard| list(shard)) {
            let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
            let digest = format!("{}:{}", name(&algorithm), name(&file));
            found.insert(digest.parse().unwrap(), std::fs::read(file).unwrap());
        }
    }
    found
}

/// Fails where a file under `blobs/` is not what its name says.
pub(crate) fn assert_all_blobs_are_right(data_dir: &Path) {
    assert_all_but(data_dir, None);
}

/// The same, but for one that a test has damaged.
pub(crate) fn assert_all_but(data_dir: &Path, damaged: Option<&Digest>) {
    for (digest, bytes) in blobs_on_disk(data_dir) {
        if damaged == Some(&digest) {
            continue;
        }
        assert_ne!(digest.algorithm(), Algorithm::Other);
        let actual = Digest::of(digest.algorithm(), &bytes);
        assert_eq!(actual, Some(digest), "{} bytes", bytes.len());
    }
}

/// The record of tag `tag` in one repository.
pub(crate) fn tag(tag: &str) -> RefKey {
    RefKey {
        upstream: "registry.test".parse().unwrap(),
        repository: "library/app".parse().unwrap(),
        kind: RefKind::Tag(tag.parse().unwrap()),
    }
}

/// Runs a test whose time passes by itself.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}
