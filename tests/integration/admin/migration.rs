//! A data directory of an older format. There is but one format so far, so these are of a program that knows another,
//! which kept blobs in a directory of their own each.

use std::fs;
use std::io;
use std::sync::Arc;

use futures_util::StreamExt as _;
use layby::app::{App, AtRest, Environment};
use layby::config::{Config, Overrides};
use layby::proxy::admin::model::{VerifyEvent, VerifyReport};
use layby::runtime::Clock;
use layby::store::{Disk, Files, Formats, Kind, Step};

use super::*;
use crate::forgetful::{Forgetful, Luck};

/// Where the made-up older format kept its blobs.
const BEFORE: &str = "before";

/// Moves each blob to where it is now.
fn move_blobs(files: &dyn Files, root: &Path) -> io::Result<()> {
    let before = root.join(BEFORE);
    let entries = match files.list(&before) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let sha256 = root.join("blobs/sha256");
    make_dir(files, &sha256)?;
    for entry in entries.iter().filter(|entry| entry.kind == Kind::File) {
        let name = entry.name.to_str().unwrap_or_default();
        let shard = sha256.join(&name[..2]);
        make_dir(files, &shard)?;
        files.rename(&before.join(name), &shard.join(name))?;
        // Where a crash left both names, a rename leaves them too.
        match files.unlink(&before.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        files.sync_dir(&shard)?;
    }
    files.sync_dir(&sha256)?;
    files.sync_dir(&root.join("blobs"))?;
    files.sync_dir(&before)?;
    files.remove_dir(&before)?;
    files.sync_dir(root)
}

fn make_dir(files: &dyn Files, dir: &Path) -> io::Result<()> {
    match files.create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

const FORMATS: Formats = Formats::new(
    1,
    &[Step {
        name: "blobs move into directories of their own",
        run: move_blobs,
    }],
);

/// A cache in the older format, stopped.
async fn old_cache() -> Scene {
    let mut scene = Scene::new().await;
    scene.layby.stop().await;
    let data = scene.layby.data();
    fs::create_dir(data.join(BEFORE)).expect("a directory");
    for digest in scene.layby.committed() {
        let name = digest.encoded();
        let now = data.join("blobs/sha256").join(&name[..2]).join(name);
        fs::rename(now, data.join(BEFORE).join(name)).expect("moved");
    }
    fs::remove_dir_all(data.join("blobs")).expect("removed");
    scene
}

fn environment(files: Arc<dyn Files>) -> Environment {
    Environment {
        clock: Clock::system(),
        files,
        formats: FORMATS,
    }
}

impl Scene {
    fn parsed(&self) -> Config {
        let text = self.setup.toml(&self.layby.data());
        Config::from_toml(&text, &Overrides::default()).expect("right")
    }

    /// Verifies the directory at rest, as the newer program does.
    async fn verified_at_rest(&self) -> VerifyReport {
        let rest = AtRest::open(&self.parsed(), environment(Arc::new(Disk))).await;
        let rest = rest.expect("it can be used");
        let administration = rest.administration();
        let mut events = administration.verify(None).await.expect("it begins");
        let report = loop {
            match events.next().await.expect("an end").expect("an event") {
                VerifyEvent::Done(report) => break report,
                VerifyEvent::Progress { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        drop((events, administration));
        rest.close().await;
        report
    }

    /// Pulls both images with the upstream down.
    async fn served_by(&self, app: &App) {
        let address = app.addresses()[0];
        for (repository, tag, image) in [(APP, "latest", &self.app), (WEB, "v1", &self.web)] {
            let path = format!("/v2/{repository}/manifests/{tag}");
            let manifest = crate::support::get(address, &path).await.expect(200);
            assert_eq!(manifest.body, image.manifest.all());
            for blob in image.blobs() {
                let path = crate::support::blob_path(repository, blob);
                let got = crate::support::download(address, path).await;
                assert!(got.is_whole(blob.digest()), "{}", got.head.raw);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_loses_power_anywhere_goes_on_and_nothing_is_lost() {
    let scene = old_cache().await;
    scene.fake.go_down().await;
    let data = scene.layby.data();
    let scratch = data.parent().expect("a directory").to_owned();
    let kept = scratch.join("kept");
    copy(&data, &kept);
    for luck in [Luck::Nothing, Luck::All] {
        let mut changes = 0;
        loop {
            fs::remove_dir_all(&data).expect("cleared");
            copy(&kept, &data);
            let files = Forgetful::new(&scratch);
            files.power_off_after(changes);
            let cut = environment(Arc::<Forgetful>::clone(&files) as _);
            let cut = AtRest::open(&scene.parsed(), cut).await;
            let was_cut = cut.is_err();
            if let Ok(rest) = cut {
                rest.close().await;
            }
            drop(files.power_loss(luck));
            let report = scene.verified_at_rest().await;
            assert_eq!(report.sound, 7, "{report:?} after {changes} changes");
            assert_eq!(report.missing + report.foreign, 0, "{report:?}");
            if !was_cut {
                break;
            }
            changes += 3;
            assert!(changes < 500, "it fails by itself");
        }
        assert!(changes > 20, "{changes}");
    }
    let app = App::start(scene.parsed(), environment(Arc::new(Disk))).await;
    let app = app.expect("it starts");
    scene.served_by(&app).await;
    app.stop().await;
    // What knows the older format alone leaves it as it is.
    for command in ["verify", "ls"] {
        let refused = scene.run(&[command]).await.expect(3);
        assert!(
            refused
                .err
                .contains("says format 2, and this version knows formats up to 1"),
            "{refused:?}"
        );
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}
