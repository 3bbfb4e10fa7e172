//! A cache much smaller than what real clients pull through it.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, SystemTime};

use fastrand::Rng;

use super::containerd::{self, Containerd};
use super::host;
use super::images::Image;
use super::registry::Registry;
use super::scene::Scene;
use super::skopeo;
use super::story::{At, Way};

const UPSTREAM: &str = "docker.io";
const TAG: &str = "v1";
const IMAGES: usize = 35;
/// By each of two clients.
const PULLS: usize = 20;
const MIB: usize = 1 << 20;
/// Limit of the cache, in units of [`unit`]; all images together are five times that.
const LIMIT: usize = 64;

/// A mebibyte, or as many as make a cache of 2 GiB and images of 10 GiB with `LAYBY_TEST_LARGE`.
fn unit() -> usize {
    match std::env::var_os("LAYBY_TEST_LARGE") {
        Some(_) => 32 * MIB,
        None => MIB,
    }
}

/// The seed of `LAYBY_TEST_SEED`, or a new one.
fn seed() -> u64 {
    match std::env::var("LAYBY_TEST_SEED") {
        Ok(seed) => seed.parse().expect("LAYBY_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    }
}

/// Images with a base that every third shares, and two layers of their own.
fn push_images(registry: &Registry, made: &Path) -> Vec<Image> {
    let make = |number: usize| {
        let layers = [
            (format!("base {}", number % 3), 4 * unit()),
            (format!("large {number}"), (4 + number * 5 % 7) * unit()),
            (format!("small {number}"), 2 * unit()),
        ];
        let image = Image::of_layers(format!("library/app{number}"), TAG, &layers, made);
        registry.push(&image, made);
        fs::remove_dir_all(made).unwrap();
        image
    };
    (0..IMAGES).map(make).collect()
}

/// One of the images, the first ones far more often.
fn zipf<'a>(images: &'a [Image], rng: &mut Rng) -> &'a Image {
    let weights = (1..=images.len()).map(|rank| 10_000 / rank);
    let sum: usize = weights.clone().sum();
    let mut left = rng.usize(..sum);
    for (image, weight) in images.iter().zip(weights) {
        if left < weight {
            return image;
        }
        left -= weight;
    }
    unreachable!("it is less than the sum of the weights")
}

/// What the program with this process has on disk.
struct Disk {
    data: PathBuf,
    process: u32,
}

/// A file, whatever its name is: numbers are given again, though not at the same time.
type Identity = (u64, Option<SystemTime>);

impl Disk {
    /// The most bytes of blobs and of what is on its way to be one, at any look until the other side hangs up.
    fn most(&self, until: &Receiver<()>) -> u64 {
        let mut most = 0;
        while until.recv_timeout(BETWEEN_LOOKS) == Err(RecvTimeoutError::Timeout) {
            most = most.max(self.taken());
        }
        most
    }

    /// No more than what was taken at a moment during the call: by the files that were there all the time between two looks.
    fn taken(&self) -> u64 {
        let (before, after) = (self.look(), self.look());
        let in_both = before.iter().filter_map(|(file, bytes)| {
            let bytes_after = after.get(file)?;
            Some(bytes.min(bytes_after))
        });
        in_both.sum()
    }

    fn look(&self) -> HashMap<Identity, u64> {
        let mut files = HashMap::new();
        for folder in ["partial", "blobs"] {
            add_below(&self.data.join(folder), &mut files);
        }
        self.add_unlinked(&mut files);
        files
    }

    /// Files that have no name any more, and take their place until they are closed.
    fn add_unlinked(&self, files: &mut HashMap<Identity, u64>) {
        let open = format!("/proc/{}/fd", self.process);
        for entry in fs::read_dir(open).unwrap().flatten() {
            let is_ours = fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(&self.data));
            // Follows to what is open, also without a name.
            if let Ok(metadata) = fs::metadata(entry.path())
                && is_ours
                && metadata.is_file()
                && metadata.nlink() == 0
            {
                add(&metadata, files);
            }
        }
    }
}

fn add_below(folder: &Path, files: &mut HashMap<Identity, u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // Files go while one looks.
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => add_below(&entry.path(), files),
            Ok(metadata) => add(&metadata, files),
            Err(_) => {}
        }
    }
}

/// Counts the blocks of a file, those included that are reserved for what is to come.
fn add(metadata: &Metadata, files: &mut HashMap<Identity, u64>) {
    let (len, allocated) = (metadata.len(), metadata.blocks() * 512);
    let is_padding = allocated.saturating_sub(len) < PADDING;
    let bytes = if is_padding { len } else { allocated };
    files.insert((metadata.ino(), metadata.created().ok()), bytes);
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// The rest of a file's last block, and a block in which the file system notes where the others are.
const PADDING: u64 = 8192;

#[test]
fn containerd_and_skopeo_pull_five_times_what_the_cache_may_hold() {
    if !host::has(&["containerd", "ctr"]) {
        return;
    }
    let seed = seed();
    println!("LAYBY_TEST_SEED={seed}");
    let mut scene = Scene::start();
    let (storage, folder) = (scene.folder("storage"), scene.folder("large"));
    let registry = Registry::start("large", &storage, true, &folder);
    let images = push_images(&registry, &scene.folder("made"));
    let limit = LIMIT * unit();
    let admin = limit_cache(&mut scene, limit, &registry);

    let mark = scene.layby.mark();
    let most = most_while_pulling(&scene, &images, &mut Rng::with_seed(seed));
    let limit = limit as u64;
    assert!(most <= limit, "{most} bytes, where {limit} are allowed");
    assert!(most > limit / 2, "{most} bytes: the cache was never full");
    assert_eq!(scene.trap.caught(), [""; 0], "went past Layby");
    let requests = scene.layby.requests(mark);
    for request in &requests {
        assert!(request.is_whole(), "{request:?}");
    }
    let hits = requests
        .iter()
        .filter(|request| request.route() == "blob" && request.cache() == "hit");
    assert!(hits.count() > PULLS, "what is pulled often stays");
    assert!(evictions(admin) > 0.0);
}

/// Starts Layby anew before this registry, with so many bytes at most; returns the port of its admin listener.
fn limit_cache(scene: &mut Scene, limit: usize, registry: &Registry) -> u16 {
    let admin = host::free_port();
    let max_size = format!("[cache]\nmax_size = \"{limit}B\"");
    scene.layby.edit("[cache]", &max_size);
    let listen = format!("\"127.0.0.1:{admin}\"");
    scene.layby.edit("\"none\"", &listen);
    scene.layby.edit(&scene.open.url(), &registry.url());
    scene.layby.restart();
    admin
}

/// Has both clients pull at the same time; the most bytes that the cache took on disk meanwhile.
fn most_while_pulling(scene: &Scene, images: &[Image], rng: &mut Rng) -> u64 {
    let disk = Disk {
        data: scene.folder("layby"),
        process: scene.layby.process(),
    };
    let (is_over, until) = mpsc::channel();
    thread::scope(|scope| {
        let watcher = scope.spawn(move || disk.most(&until));
        let (one, other) = (rng.fork(), rng.fork());
        let clients = [
            scope.spawn(|| pull_by_containerd(scene, images, one)),
            scope.spawn(|| pull_by_skopeo(scene, images, other)),
        ];
        let ends = clients.map(ScopedJoinHandle::join);
        drop(is_over);
        for end in ends {
            end.expect("every pull is whole");
        }
        watcher.join().expect("it only looks")
    })
}

/// How many blobs were evicted.
fn evictions(admin: u16) -> f64 {
    let (_, metrics) = host::answer(admin, "/metrics").expect("an answer");
    metrics
        .lines()
        .filter(|line| line.starts_with("layby_evictions_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn pull_by_containerd(scene: &Scene, images: &[Image], mut rng: Rng) {
    let hosts = scene.folder("hosts");
    let layby = format!("http://127.0.0.1:{}", scene.layby.port());
    containerd::write_hosts(&hosts, UPSTREAM, &layby, "");
    let at = |image| At {
        upstream: UPSTREAM,
        image,
    };
    let mut pull = containerd::Pull {
        containerd: Containerd::start(scene),
        hosts,
        at: at(&images[0]),
        all_platforms: false,
    };
    for _ in 0..PULLS {
        pull.at = at(zipf(images, &mut rng));
        pull.pull();
        pull.forget();
    }
}

fn pull_by_skopeo(scene: &Scene, images: &[Image], mut rng: Rng) {
    let registries = skopeo::write_empty(scene);
    for _ in 0..PULLS {
        let at = At {
            upstream: UPSTREAM,
            image: zipf(images, &mut rng),
        };
        let source = format!("127.0.0.1:{}/{}", scene.layby.port(), at.image.name());
        let copy = skopeo::Copy::new(scene, registries.clone(), source, at);
        copy.pull();
        copy.forget();
    }
}
