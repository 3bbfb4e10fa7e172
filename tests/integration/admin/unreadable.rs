//! A directory that may not be read: pulls stay right, `layby verify` tells exactly which it is, and once it may be read
//! again everything is there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use serde_json::json;

use super::*;
use crate::support::{Program, blob_path, download, get};

/// Somebody whom the modes of files hold back, unlike the superuser.
const NOBODY: u32 = 65_534;

/// Gives a directory and all that is in it to [`NOBODY`].
fn give_away(dir: &Path) {
    chown(dir, Some(NOBODY), Some(NOBODY)).expect("its owner changes");
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            give_away(&path);
        } else {
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("its owner changes");
        }
    }
}

/// Runs the program as [`NOBODY`].
fn as_nobody(arguments: &[&str]) -> std::io::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layby"));
    command.args(arguments).uid(NOBODY).gid(NOBODY).output()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_may_not_be_read_is_told_by_a_user_who_may_not() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only the superuser can run a program as somebody else");
        return;
    }
    let scene = scene(false).await;
    if as_nobody(&["--version"]).is_err() {
        eprintln!("left out: the program cannot be run by others");
        return;
    }
    let scratch = scene.layby.data().parent().expect("a directory").to_owned();
    let config = scene.config();
    give_away(&scratch);
    let shard = scene.file(scene.victim());
    let shard = shard.parent().expect("a directory");
    fs::set_permissions(shard, fs::Permissions::from_mode(0o000)).expect("damage");
    let config = config.to_str().expect("text");
    let ran = as_nobody(&["verify", "--json", "--config", config]).expect("it runs");
    fs::set_permissions(shard, fs::Permissions::from_mode(0o750)).expect("mended");
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let told: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    let found = &told["findings"][0];
    assert_eq!(found["kind"], "unreadable");
    assert_eq!(found["place"], shard.display().to_string());
    assert_eq!(
        found["done"],
        "left alone; check its owner, its mode and the disk"
    );
    let scene = scene.serving().await;
    scene.fake.go_down().await;
    scene.pulls().await;
}

/// Takes all rights to a directory away, for as long as it lives.
struct Closed<'a>(&'a Path);

impl<'a> Closed<'a> {
    fn new(dir: &'a Path) -> Self {
        let none = fs::Permissions::from_mode(0o000);
        fs::set_permissions(dir, none).expect("damage");
        Self(dir)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        // In a test that fails, it may be gone.
        let _ = fs::set_permissions(self.0, fs::Permissions::from_mode(0o750));
    }
}

/// Two images and a server of its own process, which the modes of files hold back.
struct Guarded {
    fake: Fake,
    app: Image,
    web: Image,
    user: Option<u32>,
    setup: Setup,
    scratch: tempfile::TempDir,
    program: Program,
}

impl Guarded {
    /// `None`, said why, where nobody can be held back.
    async fn start() -> Option<Self> {
        let user = rustix::process::geteuid().is_root().then_some(NOBODY);
        if user.is_some() && as_nobody(&["--version"]).is_err() {
            eprintln!("left out: the program cannot be run by others");
            return None;
        }
        let fake = Fake::start().await;
        let app = Image::of_layers("app", vec![common(), Content::random(71, 40 * KIB)]);
        let web = Image::of_layers("web", vec![common(), Content::random(72, 3 * KIB)]);
        app.push(&fake, APP, "latest");
        web.push(&fake, WEB, "v1");
        let setup = Setup::over(&fake).of(UPSTREAM, r#"tag_ttl = "1h""#);
        let scratch = tempfile::tempdir().expect("a scratch directory");
        if let Some(user) = user {
            chown(scratch.path(), Some(user), Some(user)).expect("its owner changes");
        }
        let program = Program::start_as(user, &setup, scratch.path(), &[]).await;
        let guarded = Self {
            fake,
            app,
            web,
            user,
            setup,
            scratch,
            program,
        };
        guarded.pulls().await;
        for tag in ["org/app/_tags/latest.json", "org/web/_tags/v1.json"] {
            let record = guarded.data().join("refs").join(UPSTREAM).join(tag);
            eventually("the tag's record", || async {
                record.try_exists().unwrap_or(false).then_some(())
            })
            .await;
        }
        for (repository, image) in [(APP, &guarded.app), (WEB, &guarded.web)] {
            for blob in image.blobs() {
                let proof = guarded.proofs(repository).join(blob.digest().as_str());
                let file = guarded.shard(blob).join(blob.digest().encoded());
                eventually("the commit", || async {
                    let is_there = |path: &Path| path.try_exists().unwrap_or(false);
                    (is_there(&proof) && is_there(&file)).then_some(())
                })
                .await;
            }
        }
        Some(guarded)
    }

    /// The server ends, and another begins that remembers nothing.
    async fn restarted(mut self) -> Self {
        self.program.stop().await;
        self.program = Program::start_as(self.user, &self.setup, self.scratch.path(), &[]).await;
        self
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn shard(&self, blob: &Content) -> PathBuf {
        let blobs = self.data().join("blobs/sha256");
        blobs.join(&blob.digest().encoded()[..2])
    }

    fn proofs(&self, repository: &str) -> PathBuf {
        let refs = self.data().join("refs").join(UPSTREAM);
        refs.join(repository).join("_blobs")
    }

    /// Both images are had, whole.
    async fn pulls(&self) {
        for (repository, tag, image) in [(APP, "latest", &self.app), (WEB, "v1", &self.web)] {
            let path = format!("/v2/{repository}/manifests/{tag}");
            let manifest = get(self.program.address(), path).await.expect(200);
            assert_eq!(manifest.body, image.manifest.all());
            for blob in image.blobs() {
                let got = download(self.program.address(), blob_path(repository, blob)).await;
                got.expect(blob);
            }
        }
    }

    /// How often a blob of the first image was asked of the upstream in this way.
    fn asked(&self, method: &str, blob: &Content) -> usize {
        let path = blob_path(APP, blob);
        let seen = self.fake.record().all();
        let of = seen.iter().filter(|seen| seen.path == path);
        of.filter(|seen| seen.method == method).count()
    }

    /// The server verifies, and tells this and nothing else.
    async fn verifies(&self, expected: &[Value], status: i32) {
        let config = self.scratch.path().join("layby.toml");
        let token = self.data().join("admin.token");
        let admin = format!("http://{}", self.program.admin());
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        let (config, token) = (text(&config), text(&token));
        let arguments = [
            "verify",
            "--json",
            "--config",
            &config,
            "--admin",
            &admin,
            "--token-file",
            &token,
        ];
        let ran = run(&arguments).await.expect(status);
        let told: Value = serde_json::from_str(&ran.out).expect("JSON");
        assert_eq!(told["findings"], json!(expected), "{told:#}");
    }
}

fn unreadable(place: &str, digest: Option<&str>, found: &str) -> Value {
    json!({
        "kind": "unreadable",
        "place": place,
        "digest": digest,
        "found": found,
        "done": "left alone; check its owner, its mode and the disk",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_server_runs_a_shard_that_may_not_be_read_is_passed_by_and_told() {
    let Some(guarded) = Guarded::start().await else {
        return;
    };
    let victim = &guarded.app.layers[1];
    let shard = guarded.shard(victim);
    let both = guarded.app.blobs().chain(guarded.web.blobs());
    let inside = both.filter(|blob| guarded.shard(blob) == shard);
    assert_eq!(inside.count(), 1, "other images, please");
    let (dir, file) = (shard.display(), shard.join(victim.digest().encoded()));
    let expected = [
        unreadable(
            &dir.to_string(),
            None,
            &format!("cannot list {dir}: {DENIED}"),
        ),
        unreadable(
            "registry.test/org/app:latest",
            Some(victim.digest().as_str()),
            &format!("cannot look at {}: {DENIED}", file.display()),
        ),
    ];
    let closed = Closed::new(&shard);
    guarded.fake.record().clear();
    // It is fetched anew each time, and cannot be kept.
    for round in 1..=2 {
        guarded.pulls().await;
        assert_eq!(guarded.asked("GET", victim), round);
        // While it is still being found out that it cannot be kept, the next client joins this fetch.
        let over = || async { (guarded.program.gauge("flights").await == 0).then_some(()) };
        eventually("the end of the fetch", over).await;
    }
    guarded.verifies(&expected, 1).await;
    drop(closed);
    guarded.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_server_runs_proofs_that_may_not_be_read_are_asked_for_and_told() {
    let Some(guarded) = Guarded::start().await else {
        return;
    };
    let proofs = guarded.proofs(APP);
    let first = proofs.join(guarded.app.manifest.digest().as_str());
    let expected = [unreadable(
        "registry.test/org/app",
        None,
        &format!("cannot look at {}: {DENIED}", first.display()),
    )];
    let closed = Closed::new(&proofs);
    let guarded = guarded.restarted().await;
    guarded.fake.record().clear();
    guarded.pulls().await;
    for blob in guarded.app.blobs() {
        let asked = (guarded.asked("HEAD", blob), guarded.asked("GET", blob));
        assert_eq!(asked, (1, 0));
    }
    guarded.verifies(&expected, 1).await;
    drop(closed);
    guarded.ends_well().await;
}

impl Guarded {
    /// Nothing is wrong, all is served from here, and nothing went wrong that should not.
    async fn ends_well(self) {
        self.verifies(&[], 0).await;
        self.fake.go_down().await;
        self.pulls().await;
        let log = self.program.log();
        let bad = log.iter().find(|line| line.contains("please report"));
        assert_eq!(bad, None);
        self.program.stop().await;
    }
}

/// As the system says it.
const DENIED: &str = "Permission denied (os error 13)";
