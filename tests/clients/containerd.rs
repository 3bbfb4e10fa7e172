//! containerd through `ctr`, with Layby in `hosts.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use super::host::{self, Daemon};
use super::images::Image;
use super::layby::Request;
use super::scene::{Scene, stock};
use super::story::{self, At, Way};

/// containerd with a socket and directories of its own. It ends when it is dropped.
pub(crate) struct Containerd {
    _daemon: Daemon,
    socket: PathBuf,
    environment: Vec<(String, String)>,
}

impl Containerd {
    pub(crate) fn start(scene: &Scene) -> Self {
        let path = scene.folder("containerd").join("config.toml");
        fs::write(&path, config(scene)).unwrap();
        Self::start_with(scene, &path)
    }

    /// With a file that says at least what [`config`] does.
    pub(crate) fn start_with(scene: &Scene, config: &Path) -> Self {
        let folder = scene.folder("containerd");
        let socket = folder.join("socket");
        let environment = scene.environment();
        let args = ["--config".as_ref(), config.as_os_str()];
        let log = folder.join("log");
        let containerd = Self {
            _daemon: Daemon::start("containerd", args, &environment, &log),
            socket,
            environment,
        };
        host::eventually("containerd", || {
            let mut version = containerd.command(&["version"]);
            let output = version.output().ok()?;
            output.status.success().then_some(())
        });
        containerd
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = host::command("ctr");
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg("--address")
            .arg(&self.socket)
            .args(args);
        command
    }

    /// What `ctr …` prints.
    pub(crate) fn ctr(&self, args: &[&str]) -> String {
        host::output(&mut self.command(args))
    }
}

/// A configuration that has all of containerd's own in the scene.
pub(crate) fn config(scene: &Scene) -> String {
    format!(
        r#"
            version = 2
            root = "{folder}/root"
            state = "{folder}/state"
            disabled_plugins = ["io.containerd.grpc.v1.cri"]
            [grpc]
            address = "{folder}/socket"
            [ttrpc]
            address = "{folder}/ttrpc"
        "#,
        folder = scene.folder("containerd").display()
    )
}

/// `ctr images pull`.
pub(crate) struct Pull<'a> {
    pub(crate) containerd: Containerd,
    /// With a directory for each registry, or `_default`.
    pub(crate) hosts: PathBuf,
    pub(crate) at: At<'a>,
    pub(crate) all_platforms: bool,
}

impl Pull<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.at.upstream, self.at.image.name())
    }
}

impl Way for Pull<'_> {
    fn pull(&self) {
        let hosts = self.hosts.display().to_string();
        let mut args = vec!["images", "pull", "--snapshotter=native", "--hosts-dir"];
        args.push(&hosts);
        if self.all_platforms {
            args.push("--all-platforms");
        }
        let name = self.name();
        args.push(&name);
        self.containerd.ctr(&args);
        // containerd has verified what is in its content store.
        let content = self.containerd.ctr(&["content", "ls", "--quiet"]);
        let own = self.at.image.own();
        for digest in own.blobs().chain([&own.manifest]) {
            assert!(content.contains(digest.as_str()), "{digest} in {content}");
        }
    }

    fn forget(&self) {
        self.containerd
            .ctr(&["images", "rm", "--sync", &self.name()]);
        assert_eq!(
            self.containerd.ctr(&["content", "ls", "--quiet"]).trim(),
            ""
        );
    }

    fn takes_all_platforms(&self) -> bool {
        self.all_platforms
    }

    fn check(&self, request: &Request) {
        assert_eq!(request.ns(), self.at.upstream, "{request:?}");
    }
}

/// A `hosts.toml` for `registry` in `folder` that has Layby alone, at `url`.
pub(crate) fn write_hosts(folder: &Path, registry: &str, url: &str, more: &str) {
    let folder = folder.join(registry);
    fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "server = \"{url}\"\n[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n{more}\n"
    );
    fs::write(folder.join("hosts.toml"), text).unwrap();
}

/// The whole story, with a directory for `registry` that has Layby at `path`.
fn tell_of(registry: &str, path: &str, more: &str, upstream: &str, image: &Image, all: bool) {
    if !host::has(&["containerd", "ctr"]) {
        return;
    }
    let mut scene = Scene::start();
    let hosts = scene.folder("hosts");
    let url = format!("http://127.0.0.1:{}{path}", scene.layby.port());
    write_hosts(&hosts, registry, &url, more);
    let at = At { upstream, image };
    let pull = Pull {
        containerd: Containerd::start(&scene),
        hosts,
        at,
        all_platforms: all,
    };
    story::tell(&mut scene, &pull, at);
}

#[test]
fn containerd_pulls_every_platform_by_the_hosts_file_of_one_registry() {
    tell_of("docker.io", "", "", "docker.io", &stock().demo, true);
}

#[test]
fn containerd_names_the_registry_by_ns_when_all_have_one_hosts_file() {
    tell_of("_default", "", "", "registry.test", &stock().private, false);
}

#[test]
fn containerd_names_the_registry_by_a_path_prefix() {
    let path = "/registry.test";
    let image = &stock().private;
    tell_of("registry.test", path, "", "registry.test", image, false);
}

#[test]
fn containerd_names_the_registry_by_an_overridden_path_and_ns() {
    let (path, more) = ("/v2/registry.test", "override_path = true");
    let image = &stock().private;
    tell_of("registry.test", path, more, "registry.test", image, false);
}
