//! Administration over a real store, with images put into it by hand.

mod archives;
mod carry;
mod images;
mod pins;
mod remove;
mod scrub;
mod sweep;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tempfile::TempDir;

use crate::config::{Config, MinFree, Overrides};
use crate::oci::{Digest, MediaType};
use crate::proxy::Place;
use crate::proxy::tags::TagRecord;
use crate::proxy::testing::place;
use crate::runtime::{Clock, Tasks};
use crate::store::{Disk, Files, RefKind, Store, StoreOptions};
use crate::telemetry::Metrics;

use super::model::ImageSummary;
use super::{AdminError, Administration, ImageQuery, Keeper};

/// A data directory that nobody serves, and its keeper.
struct Shelf {
    dir: TempDir,
    toml: String,
    clock: Clock,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    keeper: Keeper,
}

/// An image for one platform.
#[derive(Clone)]
struct Picture {
    config: String,
    layers: Vec<String>,
    manifest: String,
}

impl Picture {
    /// Layers that are alike are one blob.
    fn new(name: &str, layers: &[&str]) -> Self {
        let config = json!({ "os": "linux", "architecture": "amd64", "author": name }).to_string();
        let described = |media_type: &str, text: &str| {
            json!({
                "mediaType": format!("application/vnd.oci.image.{media_type}"),
                "digest": Digest::sha256(text.as_bytes()),
                "size": text.len(),
            })
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_MANIFEST,
            "config": described("config.v1+json", &config),
            "layers": layers.iter().map(|l| described("layer.v1.tar", l)).collect::<Vec<_>>(),
        });
        Self {
            config,
            layers: layers.iter().map(ToString::to_string).collect(),
            manifest: manifest.to_string(),
        }
    }

    fn digest(&self) -> Digest {
        Digest::sha256(self.manifest.as_bytes())
    }

    fn blobs(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    fn len(&self) -> u64 {
        let blobs: usize = self.blobs().map(String::len).sum();
        (blobs + self.manifest.len()) as u64
    }
}

/// An index of images, by platform.
fn index(pictures: &[(&str, &Picture)]) -> String {
    let manifests: Vec<_> = pictures
        .iter()
        .map(|(architecture, picture)| {
            json!({
                "mediaType": MediaType::OCI_MANIFEST,
                "digest": picture.digest(),
                "size": picture.manifest.len(),
                "platform": { "os": "linux", "architecture": architecture },
            })
        })
        .collect();
    json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": manifests })
        .to_string()
}

fn sha(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

fn alpine() -> Place {
    place("docker.io", "library/alpine")
}

impl Shelf {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::open(dir, toml, Clock::system()).await
    }

    async fn open(dir: TempDir, toml: &str, clock: Clock) -> Self {
        Self::open_over(dir, toml, clock, Arc::new(Disk)).await
    }

    async fn open_over(dir: TempDir, toml: &str, clock: Clock, files: Arc<dyn Files>) -> Self {
        let config = Config::from_toml(toml, &Overrides::default()).unwrap();
        let (metrics, tasks) = (Arc::<Metrics>::default(), Tasks::new());
        let options = StoreOptions {
            data_dir: dir.path().join("data"),
            max_size: None,
            min_free: MinFree::Bytes(0),
            max_age: None,
            evicts: false,
            lock_wait: Duration::ZERO,
            offline: false,
        };
        let shared = Arc::clone(&metrics);
        let store = Store::open(options, files, clock.clone(), shared, tasks.clone()).await;
        let store = store.unwrap();
        store.scanned().await;
        let keeper = Keeper::at_rest(
            &config,
            Arc::clone(&store),
            clock.clone(),
            Arc::clone(&metrics),
            tasks.clone(),
        );
        Self {
            dir,
            toml: toml.to_owned(),
            clock,
            store,
            metrics,
            tasks,
            keeper: keeper.unwrap(),
        }
    }

    /// Ends this life and begins the next.
    async fn reopened(self) -> Self {
        self.tasks.stop();
        assert!(self.tasks.drained(Duration::from_mins(1)).await);
        let Self {
            dir,
            toml,
            clock,
            store,
            keeper,
            ..
        } = self;
        drop((store, keeper));
        Self::open(dir, &toml, clock).await
    }

    /// Stores a blob under a repository, with its proof.
    async fn blob(&self, place: &Place, text: &str) {
        let digest = sha(text);
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        self.store.put_blob(bytes, &digest).await.unwrap();
        let proof = place.key(RefKind::Blob(digest));
        self.store.put_ref(&proof, Vec::new()).await.unwrap();
    }

    /// Stores a manifest under a repository.
    async fn manifest(&self, place: &Place, text: &str) -> Digest {
        let digest = sha(text);
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        self.store.put_blob(bytes, &digest).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let record = json!({ "media_type": value["mediaType"], "size": text.len() });
        let key = place.key(RefKind::Manifest(digest.clone()));
        let record = record.to_string().into_bytes();
        self.store.put_ref(&key, record).await.unwrap();
        digest
    }

    /// Lets a tag point at a stored manifest.
    async fn tag(&self, place: &Place, tag: &str, text: &str) {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let now = Timestamp::try_from(self.clock.now()).unwrap();
        let record = json!({
            "digest": sha(text),
            "media_type": value["mediaType"],
            "size": text.len(),
            "fetched": now,
            "validated": now,
        });
        let key = place.key(RefKind::Tag(tag.parse().unwrap()));
        let record = record.to_string().into_bytes();
        self.store.put_ref(&key, record).await.unwrap();
    }

    /// Stores an image, all of it, and tags it.
    async fn image(&self, place: &Place, tag: &str, picture: &Picture) {
        for blob in picture.blobs() {
            self.blob(place, blob).await;
        }
        self.manifest(place, &picture.manifest).await;
        self.tag(place, tag, &picture.manifest).await;
    }

    /// Stores an index of images, all of them, and tags it.
    async fn index(&self, place: &Place, tag: &str, pictures: &[(&str, &Picture)]) -> Digest {
        for (_, picture) in pictures {
            for blob in picture.blobs() {
                self.blob(place, blob).await;
            }
            self.manifest(place, &picture.manifest).await;
        }
        let text = index(pictures);
        let digest = self.manifest(place, &text).await;
        self.tag(place, tag, &text).await;
        digest
    }

    fn has(&self, digest: &Digest) -> bool {
        self.store.look_at_blob(digest).unwrap().is_some()
    }

    fn is_proven(&self, place: &Place, digest: &Digest) -> bool {
        super::walk::is_proven(&self.store, place, digest).unwrap()
    }

    fn record(&self, place: &Place, tag: &str) -> Option<TagRecord> {
        super::walk::tag_record(&self.store, place, &tag.parse().unwrap()).unwrap()
    }

    async fn list(&self) -> Vec<ImageSummary> {
        let page = self.keeper.images(ImageQuery::default()).await.unwrap();
        assert_eq!(page.next, None);
        page.images
    }

    async fn names(&self) -> Vec<String> {
        let images = self.list().await;
        images.into_iter().map(|image| image.image).collect()
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let encoded = digest.encoded();
        let root = self.dir.path().join("data/blobs/sha256");
        root.join(&encoded[..2]).join(encoded)
    }
}
