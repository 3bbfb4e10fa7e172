//! podman, with Layby in the name of the image or in `registries.conf`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::host;
use super::scene::{Scene, stock};
use super::skopeo::{write_empty, write_mirror};
use super::story::{self, At, Way};

/// `podman pull` into a store of its own.
pub(crate) struct Pull<'a> {
    environment: Vec<(String, String)>,
    folder: PathBuf,
    name: String,
    at: At<'a>,
}

impl<'a> Pull<'a> {
    pub(crate) fn new(scene: &Scene, registries: &Path, name: String, at: At<'a>) -> Self {
        let folder = scene.folder("podman");
        let policy = r#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#;
        fs::write(folder.join("policy.json"), policy).unwrap();
        let mut environment = scene.environment();
        let registries = registries.display().to_string();
        environment.push(("CONTAINERS_REGISTRIES_CONF".to_owned(), registries));
        Self {
            environment,
            folder,
            name,
            at,
        }
    }

    fn podman(&self) -> Command {
        let mut podman = host::command("podman");
        podman.envs(self.environment.iter().map(|(name, value)| (name, value)));
        for (flag, name) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            podman.arg(flag).arg(self.folder.join(name));
        }
        podman.args(["--storage-driver=vfs", "--events-backend=none"]);
        podman.arg("--cgroup-manager=cgroupfs");
        podman
    }

    /// Loads the image from a file, under the name that it is pulled by.
    pub(crate) fn load(&self, file: &Path) {
        let policy = self.folder.join("policy.json").display().to_string();
        let file = file.display().to_string();
        self.say(&[
            "load",
            "--quiet",
            "--signature-policy",
            &policy,
            "--input",
            &file,
        ]);
        let own = self.at.image.own();
        let format = "sha256:{{.Id}}";
        let id = self.say(&["image", "inspect", "--format", format, &self.name]);
        assert_eq!(id, own.config);
    }

    fn say(&self, args: &[&str]) -> String {
        host::output(self.podman().args(args)).trim_end().to_owned()
    }
}

impl Way for Pull<'_> {
    fn pull(&self) {
        let policy = self.folder.join("policy.json").display().to_string();
        let name = self.name.as_str();
        self.say(&[
            "pull",
            "--quiet",
            "--tls-verify=false",
            "--signature-policy",
            &policy,
            name,
        ]);
        let own = self.at.image.own();
        let format = "sha256:{{.Id}}{{range .RootFS.Layers}} {{.}}{{end}}";
        assert_eq!(
            self.say(&["image", "inspect", "--format", format, name]),
            format!("{} {}", own.config, own.diff_ids.join(" "))
        );
    }

    fn forget(&self) {
        self.say(&["image", "rm", "--force", &self.name]);
        assert_eq!(self.say(&["image", "ls", "--all", "--quiet"]), "");
    }
}

#[test]
fn podman_pulls_by_a_prefix_in_the_name() {
    if !host::has(&["podman"]) {
        return;
    }
    let mut scene = Scene::start();
    let at = At {
        upstream: "docker.io",
        image: &stock().app,
    };
    let port = scene.layby.port();
    let name = format!("127.0.0.1:{port}/docker.io/{}", at.image.name());
    let pull = Pull::new(&scene, &write_empty(&scene), name, at);
    story::tell(&mut scene, &pull, at);
}

#[test]
fn podman_pulls_through_a_mirror_of_registries_conf() {
    if !host::has(&["podman"]) {
        return;
    }
    let mut scene = Scene::start();
    let at = At {
        upstream: "registry.test",
        image: &stock().private,
    };
    let name = format!("{}/{}", at.upstream, at.image.name());
    let registries = write_mirror(&scene, at.upstream);
    let pull = Pull::new(&scene, &registries, name, at);
    story::tell(&mut scene, &pull, at);
}
