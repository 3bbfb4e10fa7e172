//! dockerd, with Layby for a registry mirror.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::{self, Daemon};
use super::images::Image;
use super::scene::{Scene, stock};
use super::story::{self, At, Way};

/// dockerd with a socket and directories of its own, and the command line for it. It ends when it is dropped.
pub(crate) struct Dockerd {
    daemon: Daemon,
    folder: PathBuf,
    socket: PathBuf,
    environment: Vec<(String, String)>,
}

impl Dockerd {
    /// Starts it with `daemon_json` for its configuration.
    pub(crate) fn start(scene: &Scene, daemon_json: &Path) -> Self {
        let folder = scene.folder("dockerd");
        let socket = folder.join("socket");
        let environment = scene.environment();
        let mut args = vec!["--iptables=false".to_owned(), "--bridge=none".to_owned()];
        for (flag, path) in [
            ("config-file", daemon_json),
            ("data-root", &folder.join("data")),
            ("exec-root", &folder.join("exec")),
            ("pidfile", &folder.join("pid")),
        ] {
            args.push(format!("--{flag}={}", path.display()));
        }
        args.push(format!("--host=unix://{}", socket.display()));
        let mut daemon = Daemon::start("dockerd", args, &environment, &folder.join("log"));
        let docker = Docker {
            socket: &socket,
            environment: &environment,
        };
        daemon.until(|| {
            let mut version = docker.command(&["version"]);
            version.output().is_ok_and(|output| output.status.success())
        });
        Self {
            daemon,
            folder,
            socket,
            environment,
        }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A command that talks to it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let docker = Docker {
            socket: &self.socket,
            environment: &self.environment,
        };
        docker.command(args)
    }

    /// What `docker …` prints, without the newline at its end.
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        host::output(&mut self.command(args)).trim_end().to_owned()
    }
}

impl Drop for Dockerd {
    /// It leaves the network name space of its last container mounted.
    fn drop(&mut self) {
        self.daemon.stop();
        for mount in host::read(Path::new("/proc/self/mounts")).lines() {
            let place = mount.split(' ').nth(1).unwrap_or_default();
            if Path::new(place).starts_with(&self.folder) {
                let _ = Command::new("umount").args(["--lazy", place]).status();
            }
        }
    }
}

struct Docker<'a> {
    socket: &'a Path,
    environment: &'a [(String, String)],
}

impl Docker<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = host::command("docker");
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg(format!("--host=unix://{}", self.socket.display()))
            .args(args);
        command
    }
}

/// `docker pull` of an image of Docker Hub.
pub(crate) struct Pull<'a> {
    pub(crate) dockerd: Dockerd,
    pub(crate) image: &'a Image,
}

impl Way for Pull<'_> {
    fn pull(&self) {
        let name = self.image.name();
        self.dockerd.docker(&["pull", &name]);
        let own = self.image.own();
        let format = "{{.Id}}{{range .RootFS.Layers}} {{.}}{{end}}";
        assert_eq!(
            self.dockerd
                .docker(&["image", "inspect", "--format", format, &name]),
            format!("{} {}", own.config, own.diff_ids.join(" "))
        );
    }

    fn forget(&self) {
        self.dockerd
            .docker(&["image", "rm", "--force", &self.image.name()]);
        assert_eq!(
            self.dockerd.docker(&["image", "ls", "--all", "--quiet"]),
            ""
        );
    }

    /// dockerd removes them later, when its containerd collects garbage.
    fn may_keep_manifests(&self) -> bool {
        true
    }
}

/// A scene, and dockerd with Layby for a mirror.
fn tell_of(image: &Image) {
    if !host::has(&["dockerd", "docker", "containerd"]) {
        return;
    }
    let mut scene = Scene::start();
    let daemon_json = scene.folder("docker").join("daemon.json");
    let mirrors = serde_json::json!({
        "registry-mirrors": [format!("http://127.0.0.1:{}", scene.layby.port())],
    });
    fs::write(&daemon_json, mirrors.to_string()).unwrap();
    let dockerd = Dockerd::start(&scene, &daemon_json);
    let upstream = "docker.io";
    story::tell(&mut scene, &Pull { dockerd, image }, At { upstream, image });
}

#[test]
fn dockerd_pulls_an_official_image_through_its_mirror() {
    tell_of(&stock().demo);
}

#[test]
fn dockerd_pulls_an_organisations_oci_image_through_its_mirror() {
    tell_of(&stock().app);
}
