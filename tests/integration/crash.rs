//! A crash at any instant loses at most what was unfinished, and nothing that is served afterwards is wrong.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use layby::store::Files;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::fake::{Content, Fake};
use crate::forgetful::{Forgetful, Luck};
use crate::support::{
    End, Image, KIB, Layby, Program, Request, Setup, Wire, blob_path, download, soon,
    verify_committed,
};

const REPOSITORY: &str = "org/app";

/// What the clients of one life pull: an image of blobs that are small, middling and large.
fn image_of(life: u64) -> Image {
    Image::new(
        900 + life,
        &[10, 3 * KIB, 70 * KIB, 900 * KIB, 1500 * KIB, 2500 * KIB],
    )
}

/// Counts what clients receive, so that a crash can come at a chosen byte.
#[derive(Debug, Default)]
struct Counter {
    bytes: AtomicU64,
    changed: Notify,
}

impl Counter {
    fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        self.changed.notify_one();
    }

    async fn reaches(&self, bytes: u64) {
        while self.bytes.load(Ordering::SeqCst) < bytes {
            self.changed.notified().await;
        }
    }
}

/// Pulls one thing until it is there or the server is not; whatever came whole must be right.
async fn pull_one(address: SocketAddr, path: String, content: Content, counter: Arc<Counter>) {
    let Ok(stream) = tokio::net::TcpStream::connect(address).await else {
        return;
    };
    let mut wire = Wire::of(stream);
    if !wire.try_send(&Request::get(path)).await {
        return;
    }
    let Some(head) = wire.try_head().await else {
        return;
    };
    if head.status != 200 {
        return;
    }
    let mut got = Vec::new();
    while let Some(bytes) = wire.some(64 * KIB).await {
        counter.add(bytes.len() as u64);
        got.extend_from_slice(&bytes);
    }
    if wire.ended() == End::Complete {
        assert!(got == content.all(), "a complete answer was wrong");
    }
}

/// Several clients pulling all of an image at once.
fn pull_all(address: SocketAddr, image: &Image, counter: &Arc<Counter>) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for _ in 0..3 {
        let manifest = format!("/v2/{REPOSITORY}/manifests/latest");
        let mut wanted = vec![(manifest, image.manifest.clone())];
        wanted.extend(
            image
                .blobs()
                .map(|blob| (blob_path(REPOSITORY, blob), blob.clone())),
        );
        for (path, content) in wanted {
            clients.spawn(pull_one(address, path, content, Arc::clone(counter)));
        }
    }
    clients
}

async fn join(mut clients: JoinSet<()>) {
    while let Some(client) = soon("the clients end", clients.join_next()).await {
        client.expect("a client that saw nothing wrong");
    }
}

/// Fails unless all of an image is had, and right.
async fn assert_served(address: SocketAddr, image: &Image) {
    for blob in image.blobs() {
        let got = download(address, blob_path(REPOSITORY, blob)).await;
        assert!(got.is_whole(blob.digest()), "{}", got.head.raw);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_amid_cold_pulls_leave_nothing_wrong_behind() {
    let fake = Fake::start().await;
    let scratch = tempfile::tempdir().unwrap();
    let setup = Setup::over(&fake);
    let mut previous: Option<Image> = None;
    for life in 0..30 {
        let image = image_of(life);
        image.push(&fake, REPOSITORY, "latest");
        let program = Program::start(&setup, scratch.path()).await;
        if let Some(previous) = &previous {
            assert_served(program.address(), previous).await;
        }
        let counter = Arc::new(Counter::default());
        let clients = pull_all(program.address(), &image, &counter);
        // Three clients pull about five megabytes each.
        let moment = fastrand::u64(1..14_000_000);
        soon("the moment", counter.reaches(moment)).await;
        program.kill().await;
        join(clients).await;
        verify_committed(&scratch.path().join("data"));
        previous = Some(image);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn power_losses_amid_cold_pulls_leave_nothing_wrong_behind() {
    let lucks = [
        Luck::Nothing,
        Luck::Names,
        Luck::Bytes,
        Luck::Seed(1),
        Luck::Seed(2),
        Luck::Seed(3),
    ];
    for (round, luck) in (0..).zip(lucks.into_iter().cycle().take(18)) {
        let fake = Fake::start().await;
        let scratch = Arc::new(tempfile::tempdir().unwrap());
        let files = Forgetful::new(scratch.path());
        let image = image_of(100 + round);
        image.push(&fake, REPOSITORY, "latest");
        let setup = Setup::over(&fake);
        let mut layby = setup
            .clone()
            .start_in(Arc::clone(&scratch), files_of(&files))
            .await;
        files.power_off_after(fastrand::u64(0..120));
        let clients = pull_all(layby.address(), &image, &Arc::default());
        join(clients).await;
        layby.stop().await;

        let files = files.power_loss(luck);
        verify(scratch.path(), luck);
        let layby = setup.start_in(Arc::clone(&scratch), files).await;
        verify(scratch.path(), luck);
        assert_served(layby.address(), &image).await;
        assert_manifest(&layby, &image).await;
        verify(scratch.path(), luck);
    }
}

fn files_of(files: &Arc<Forgetful>) -> Arc<dyn Files> {
    Arc::<Forgetful>::clone(files)
}

fn verify(scratch: &Path, luck: Luck) {
    let data = scratch.join("data");
    let count = verify_committed(&data);
    assert!(count < 100, "{luck:?}");
}

async fn assert_manifest(layby: &Layby, image: &Image) {
    let latest = format!("/v2/{REPOSITORY}/manifests/latest");
    assert_eq!(
        layby.get(&latest).await.expect(200).body,
        image.manifest.all()
    );
    let by_digest = format!("/v2/{REPOSITORY}/manifests/{}", image.manifest.digest());
    assert_eq!(
        layby.get(&by_digest).await.expect(200).body,
        image.manifest.all()
    );
}

/// Whatever was told to be there, and synced, is there after the power came back, without asking for it again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_served_from_the_cache_survives_a_power_loss() {
    let fake = Fake::start().await;
    let scratch = Arc::new(tempfile::tempdir().unwrap());
    let files = Forgetful::new(scratch.path());
    let image = image_of(200);
    image.push(&fake, REPOSITORY, "latest");
    let setup = Setup::over(&fake);
    let mut layby = setup
        .clone()
        .start_in(Arc::clone(&scratch), files_of(&files))
        .await;
    assert_manifest(&layby, &image).await;
    assert_served(layby.address(), &image).await;
    for blob in image.blobs() {
        // A hit was committed, and so was the proof once Layby has stopped.
        crate::support::eventually("a hit", || async {
            let warm = layby.get(&blob_path(REPOSITORY, blob)).await.expect(200);
            (warm.header("cache-status") == Some("layby; hit")).then_some(())
        })
        .await;
    }
    layby.stop().await;
    let files = files.power_loss(Luck::Nothing);
    fake.go_down().await;
    let layby = setup.start_in(scratch, files).await;
    assert_served(layby.address(), &image).await;
    assert_manifest(&layby, &image).await;
}
