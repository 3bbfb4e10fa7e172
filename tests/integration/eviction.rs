//! A cache smaller than what is pulled through it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::fake::{Content, Fake};
use crate::support::{Image, KIB, Layby, MIB, Setup, eventually, verify_committed};

const LIMIT: u64 = 16 * MIB;
const IMAGES: u64 = 24;
const CLIENTS: u64 = 6;
const PULLS: u64 = 12;

/// An image with layers of its own and a base that every third shares.
fn image(number: u64) -> Image {
    let base = Content::random(number % 3, MIB);
    let own = 600 * KIB + number * 97 % 7 * 300 * KIB;
    let layers = vec![base, Content::random(100 + number, own)];
    Image::of_layers(&format!("image {number}"), layers)
}

/// Bytes of blobs and of what is on its way, the smallest of some looks: files come and go while one looks.
fn on_disk(data: &Path) -> u64 {
    let look = || {
        let mut files = HashMap::new();
        // The partials first: a file keeps its number when it becomes a blob.
        for dir in ["partial", "blobs"] {
            add_below(&data.join(dir), &mut files);
        }
        files.values().sum()
    };
    (0..3).map(|_| look()).min().unwrap_or_default()
}

fn add_below(dir: &Path, files: &mut HashMap<u64, u64>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let is_log = entry.file_name().to_string_lossy().ends_with(".log");
        if metadata.is_dir() {
            add_below(&entry.path(), files);
        } else if !is_log {
            files.insert(metadata.ino(), metadata.len());
        }
    }
}

/// A number below `all`, the small ones far more often, the same for the same `draw`.
fn zipf(draw: u64, all: u64) -> u64 {
    let weights: Vec<u64> = (1..=all).map(|rank| 10_000 / rank).collect();
    let sum: u64 = weights.iter().sum();
    let mut left = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15) % sum;
    for (number, weight) in (0..).zip(&weights) {
        if left < *weight {
            return number;
        }
        left -= weight;
    }
    0
}

/// Waits until blobs have gone for this reason.
async fn evicted(layby: &Layby, reason: &str) {
    let labels = format!("reason=\"{reason}\"");
    eventually("the eviction", || async {
        (layby.metric("evictions_total", &labels).await > 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_cache_stays_below_its_limit_and_fails_no_pull() {
    let fake = Fake::start().await;
    let images: Arc<Vec<Image>> = Arc::new((0..IMAGES).map(image).collect());
    for (number, image) in (0..).zip(images.iter()) {
        image.push(&fake, &format!("org/app{number}"), "v1");
    }
    let setup = Setup::over(&fake).set("cache", &format!(r#"max_size = "{}MiB""#, LIMIT / MIB));
    let layby = setup.start().await;
    let (data, is_over) = (layby.data(), Arc::new(AtomicBool::new(false)));
    let watched = Arc::clone(&is_over);
    let watcher = tokio::task::spawn_blocking(move || {
        let mut most = 0;
        while !watched.load(Ordering::Relaxed) {
            most = most.max(on_disk(&data));
            std::thread::yield_now();
        }
        most
    });
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (images, address) = (Arc::clone(&images), layby.address());
        clients.spawn(async move {
            for pull in 0..PULLS {
                let number = zipf(client * 1000 + pull, IMAGES);
                let image = &images[usize::try_from(number).expect("small")];
                image.pull(address, &format!("org/app{number}"), "v1").await;
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("every pull is whole");
    }
    is_over.store(true, Ordering::Relaxed);
    let most = watcher.await.expect("the watcher");
    // Records on their way are no blobs, and are small.
    assert!(most <= LIMIT + 64 * KIB, "{most} bytes");
    assert!(most > LIMIT / 2, "{most} bytes: the cache was never full");
    assert!(layby.metric("evictions_total", "").await > 0.0);
    verify_committed(&layby.data());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_a_smaller_limit_evicts_down_to_it_and_offline_evicts_nothing() {
    let fake = Fake::start().await;
    let image = Image::new(7, &[700 * KIB, 700 * KIB, 700 * KIB, 700 * KIB]);
    image.push(&fake, "org/app", "v1");
    let mut layby = Setup::over(&fake).start().await;
    image.pull(layby.address(), "org/app", "v1").await;
    layby.has_committed("org/app", image.blobs()).await;
    let all = layby.committed().len();
    let smaller = |setup: Setup| setup.set("cache", r#"max_size = "2MiB""#);
    layby
        .restart_with(|setup| smaller(setup).set("", "offline = true"))
        .await;
    image.pull(layby.address(), "org/app", "v1").await;
    assert_eq!(layby.committed().len(), all);
    layby
        .restart_with(|setup| setup.set("", "offline = false"))
        .await;
    evicted(&layby, "size").await;
    assert!(layby.metric("cache_bytes", "").await <= 2.0 * 1024.0 * 1024.0);
    image.pull(layby.address(), "org/app", "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_asked_for_within_max_age_goes_and_a_pinned_image_stays() {
    let fake = Fake::start().await;
    let (kept, old) = (Image::new(8, &[90 * KIB]), Image::new(9, &[80 * KIB]));
    kept.push(&fake, "org/kept", "v1");
    old.push(&fake, "org/old", "v1");
    let setup = Setup::over(&fake)
        .set("cache", r#"max_age = "30d""#)
        .set("cache", r#"pin = ["registry.test/org/kept:*"]"#);
    let mut layby = setup.start().await;
    for (image, name) in [(&kept, "org/kept"), (&old, "org/old")] {
        image.pull(layby.address(), name, "v1").await;
        layby.has_committed(name, image.blobs()).await;
    }
    layby.clock().advance(Duration::from_hours(24 * 31));
    layby.restart().await;
    evicted(&layby, "age").await;
    let there = layby.committed();
    assert!(old.blobs().all(|blob| !there.contains(blob.digest())));
    assert!(kept.blobs().all(|blob| there.contains(blob.digest())));
    assert!(there.contains(kept.manifest.digest()));
}
