//! A disk without room: pulls go on, past the cache where they must, and nothing that is kept is harmed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use layby::store::Disk;
use rustix::process::geteuid;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::fake::{Content, Fake, Gate, Rule};
use crate::support::{
    End, KIB, Layby, MIB, Request, Setup, Wire, blob_path, download, eventually, verify_committed,
};

const REPOSITORY: &str = "org/app";
/// Size of the file system.
const ALL: u64 = 96 * MIB;
/// What stays free of it.
const MIN_FREE: u64 = 16 * MIB;
/// What a file system takes for itself, and directories.
const SLACK: u64 = MIB;

/// A file system of its own in a scratch directory. It is unmounted when it is dropped.
struct Mount {
    scratch: Arc<TempDir>,
}

impl Mount {
    /// `None`, with a word on the standard error, where this machine does not let us mount.
    ///
    /// # Panics
    ///
    /// If so, and `LAYBY_REQUIRE_CLIENTS` is set.
    fn new() -> Option<Self> {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let mut mount = Command::new("mount");
        mount.args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={ALL},mode=700"),
            "tmpfs",
        ]);
        let mounted = mount.arg(scratch.path()).output();
        let why = match mounted {
            Ok(output) if output.status.success() => {
                let scratch = Arc::new(scratch);
                return Some(Self { scratch });
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        assert!(
            std::env::var_os("LAYBY_REQUIRE_CLIENTS").is_none(),
            "this test is required, and this machine does not mount a tmpfs (root: {}): {why}",
            geteuid().is_root()
        );
        // Not by println!, whose output is kept back when a test passes.
        let _ = writeln!(io::stderr(), "skipped, a tmpfs cannot be mounted: {why}");
        None
    }

    fn path(&self) -> &Path {
        self.scratch.path()
    }

    async fn start(&self, setup: Setup) -> Layby {
        setup
            .set("cache", &format!(r#"min_free = "{}MiB""#, MIN_FREE / MIB))
            .start_in(Arc::clone(&self.scratch), Arc::new(Disk))
            .await
    }

    /// Bytes that are free.
    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path()).expect("a file system");
        stat.f_bavail * stat.f_frsize
    }

    /// Takes up all but `left` bytes with a file that is none of Layby's.
    fn fill(&self, left: u64) -> Ballast {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).expect("a file");
        let piece = vec![1; 64 * 1024];
        while self.free() > left {
            let rest = usize::try_from(self.free() - left).unwrap_or(usize::MAX);
            let write = file.write_all(&piece[..rest.min(piece.len())]);
            // Full is what it is meant to be.
            if write.is_err() {
                break;
            }
        }
        Ballast(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.path())
            .status();
    }
}

/// A file that is in the way until it is dropped.
struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A registry with blobs of this size.
async fn registry(seed: u64, count: u64, len: u64) -> (Fake, Vec<Content>) {
    let fake = Fake::start().await;
    let blobs: Vec<_> = (0..count).map(|n| Content::random(seed + n, len)).collect();
    for blob in &blobs {
        fake.put_blob(REPOSITORY, blob);
    }
    (fake, blobs)
}

async fn is_hit(layby: &Layby, content: &Content) -> bool {
    let got = layby.blob(REPOSITORY, content).await;
    got.expect(content);
    got.head.get("cache-status") == Some("layby; hit")
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_more_than_fits_succeed_and_the_disk_is_never_over_committed() {
    let Some(mount) = Mount::new() else { return };
    let (fake, blobs) = registry(370, 6, 30 * MIB).await;
    let layby = mount.start(Setup::over(&fake)).await;
    // One after the other, and then all at once.
    for blob in &blobs {
        layby.blob(REPOSITORY, blob).await.expect(blob);
        assert!(mount.free() + SLACK >= MIN_FREE, "{} free", mount.free());
    }
    let mut pulls = JoinSet::new();
    for blob in blobs.iter().chain(&blobs) {
        let (address, blob) = (layby.address(), blob.clone());
        pulls.spawn(async move {
            let got = download(address, blob_path(REPOSITORY, &blob)).await;
            got.expect(&blob);
        });
    }
    while let Some(pull) = pulls.join_next().await {
        pull.unwrap();
        assert!(mount.free() + SLACK >= MIN_FREE, "{} free", mount.free());
    }
    verify_committed(&layby.data());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_a_blob_passes_through_and_is_kept_once_there_is_room() {
    let Some(mount) = Mount::new() else { return };
    let (fake, blobs) = registry(380, 3, 20 * MIB).await;
    let layby = mount.start(Setup::over(&fake)).await;
    layby.blob(REPOSITORY, &blobs[0]).await.expect(&blobs[0]);
    layby.has_committed(REPOSITORY, &blobs[..1]).await;
    let ballast = mount.fill(MIN_FREE);
    for _ in 0..2 {
        // Who takes no part in the cache is served as well; what is kept may have had to go.
        layby.blob(REPOSITORY, &blobs[1]).await.expect(&blobs[1]);
        layby.blob(REPOSITORY, &blobs[2]).await.expect(&blobs[2]);
        assert!(mount.free() + SLACK >= MIN_FREE, "{} free", mount.free());
    }
    let passed = layby.metric("bypass_total", "no_room").await;
    let evicted = layby.metric("evictions_total", "").await;
    assert!(passed + evicted >= 1.0);
    let part = Request::get(blob_path(REPOSITORY, &blobs[1])).range("1000000-1999999");
    let part = part.send_to(layby.address()).await;
    assert_eq!(part.end, End::Complete);
    assert!(
        part.body == blobs[1].read(1_000_000..2_000_000),
        "{}",
        part.head.raw
    );

    drop(ballast);
    for blob in &blobs[1..] {
        eventually("a hit", || async {
            is_hit(&layby, blob).await.then_some(())
        })
        .await;
    }
    verify_committed(&layby.data());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_in_the_middle_of_a_fetch_gives_nobody_a_wrong_byte() {
    let Some(mount) = Mount::new() else { return };
    let (fake, blobs) = registry(390, 2, 40 * MIB).await;
    let (kept, content) = (&Content::random(399, 3 * MIB), &blobs[0]);
    fake.put_blob(REPOSITORY, kept);
    let layby = mount.start(Setup::over(&fake)).await;
    layby.blob(REPOSITORY, kept).await.expect(kept);
    layby.has_committed(REPOSITORY, [kept]).await;

    let gate = Gate::closed();
    fake.script(Rule::digest(content.digest()).wait_at(10 * MIB, &gate));
    let mut readers = JoinSet::new();
    for start in [0, 0, 0, 5 * MIB, 30 * MIB] {
        let (address, content) = (layby.address(), content.clone());
        readers.spawn(async move { follow(address, &content, start).await });
    }
    gate.reached().await;
    let ballast = mount.fill(0);
    gate.open();
    let ends = readers.join_all().await;
    assert_eq!(ends.len(), 5);
    // What is kept is kept, and what comes now passes through.
    layby.blob(REPOSITORY, kept).await.expect(kept);
    eventually("a pull with a full disk", || async {
        let got = layby.blob(REPOSITORY, &blobs[1]).await;
        assert!(!got.is_a_lie(blobs[1].digest()), "{got}");
        got.is_whole(blobs[1].digest()).then_some(())
    })
    .await;
    drop(ballast);
    eventually("a hit", || async {
        let got = layby.blob(REPOSITORY, content).await;
        assert!(!got.is_a_lie(content.digest()), "{got}");
        (got.head.get("cache-status") == Some("layby; hit")).then_some(())
    })
    .await;
    verify_committed(&layby.data());
}

/// Reads a blob from `start` to its end, or to where it breaks off; fails where a byte is wrong.
async fn follow(address: std::net::SocketAddr, content: &Content, start: u64) -> End {
    let mut wire = Wire::connect(address).await;
    let request = Request::get(blob_path(REPOSITORY, content));
    let request = match start {
        0 => request,
        start => request.range(&format!("{start}-")),
    };
    wire.send(&request).await;
    let head = wire.head().await;
    if head.status >= 500 {
        return End::Broken;
    }
    assert!(matches!(head.status, 200 | 206), "{}", head.raw);
    let at = wire.compare_rest(content, start).await;
    let is_whole = at == content.len();
    assert_eq!(wire.ended() == End::Complete, is_whole);
    wire.ended()
}

/// Else whoever asks for large things could throw out what everybody uses.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_cold_requests_that_leave_at_once_do_not_empty_the_cache() {
    const SMALL: u64 = 40;
    let (fake, small) = registry(400, SMALL, 900 * KIB).await;
    let large: Vec<_> = (0..12)
        .map(|n| Content::random(450 + n, 30 * MIB))
        .collect();
    for blob in &large {
        fake.put_blob(REPOSITORY, blob);
        fake.script(Rule::digest(blob.digest()).wait_at(100 * KIB, &Gate::closed()));
    }
    let layby = Setup::over(&fake)
        .set("cache", r#"max_size = "40MiB""#)
        .start()
        .await;
    for blob in &small {
        layby.blob(REPOSITORY, blob).await.expect(blob);
    }
    layby.has_committed(REPOSITORY, &small).await;
    for _ in 0..3 {
        for blob in &large {
            let mut wire = Wire::connect(layby.address()).await;
            wire.send(&Request::get(blob_path(REPOSITORY, blob))).await;
            assert_eq!(wire.head().await.status, 200);
        }
    }
    eventually("quiet", || async {
        (layby.metric("flight_readers", "").await < 0.5).then_some(())
    })
    .await;
    let left = layby.committed();
    let kept = small.iter().filter(|blob| left.contains(blob.digest()));
    let kept = kept.count() as u64;
    assert!(kept >= SMALL * 3 / 4, "{kept} of {SMALL} are left");
}
