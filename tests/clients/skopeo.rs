//! skopeo, with Layby in the name of the image or in `registries.conf`.

use std::fs;
use std::path::PathBuf;

use super::host;
use super::images::digest;
use super::scene::{Scene, stock};
use super::story::{self, At, Way};

/// `skopeo copy` to a folder.
pub(crate) struct Copy<'a> {
    environment: Vec<(String, String)>,
    registries: PathBuf,
    /// `docker://…`
    source: String,
    target: PathBuf,
    at: At<'a>,
    all_platforms: bool,
}

impl<'a> Copy<'a> {
    pub(crate) fn new(scene: &Scene, registries: PathBuf, source: String, at: At<'a>) -> Self {
        Self {
            environment: scene.environment(),
            registries,
            source,
            target: scene.folder("skopeo").join("target"),
            at,
            all_platforms: false,
        }
    }
}

impl Way for Copy<'_> {
    fn pull(&self) {
        let mut skopeo = host::command("skopeo");
        skopeo
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(["--insecure-policy", "--registries-conf"])
            .arg(&self.registries)
            .args(["copy", "--src-tls-verify=false"])
            .args(self.all_platforms.then_some("--all"))
            .arg(format!("docker://{}", self.source))
            .arg(format!("dir:{}", self.target.display()));
        host::output(&mut skopeo);
        for blob in self.at.image.own().blobs() {
            let content = fs::read(self.target.join(blob.trim_start_matches("sha256:"))).unwrap();
            assert_eq!(digest(&content), *blob);
        }
    }

    fn forget(&self) {
        fs::remove_dir_all(&self.target).unwrap();
    }

    fn takes_all_platforms(&self) -> bool {
        self.all_platforms
    }
}

/// A `registries.conf` in which Layby is the mirror of `upstream`.
pub(crate) fn write_mirror(scene: &Scene, upstream: &str) -> PathBuf {
    let file = scene.folder("containers").join("registries.conf");
    let text = format!(
        r#"
            [[registry]]
            prefix = "{upstream}"
            location = "{upstream}"

            [[registry.mirror]]
            location = "127.0.0.1:{port}/{upstream}"
            insecure = true
        "#,
        port = scene.layby.port()
    );
    fs::write(&file, text).unwrap();
    file
}

/// A `registries.conf` that says nothing.
pub(crate) fn write_empty(scene: &Scene) -> PathBuf {
    let file = scene.folder("containers").join("registries.conf");
    fs::write(&file, "").unwrap();
    file
}

#[test]
fn skopeo_copies_every_platform_by_a_prefix_in_the_name() {
    if !host::has(&[]) {
        return;
    }
    let mut scene = Scene::start();
    let at = At {
        upstream: "registry.test",
        image: &stock().private,
    };
    let name = at.image.name();
    let source = format!("127.0.0.1:{}/registry.test/{name}", scene.layby.port());
    let mut copy = Copy::new(&scene, write_empty(&scene), source, at);
    copy.all_platforms = true;
    story::tell(&mut scene, &copy, at);
}

#[test]
fn skopeo_copies_through_a_mirror_of_registries_conf() {
    if !host::has(&[]) {
        return;
    }
    let mut scene = Scene::start();
    let at = At {
        upstream: "docker.io",
        image: &stock().demo,
    };
    let source = format!("docker.io/{}", at.image.name());
    let registries = write_mirror(&scene, at.upstream);
    let copy = Copy::new(&scene, registries, source, at);
    story::tell(&mut scene, &copy, at);
}
