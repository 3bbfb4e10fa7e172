//! Layby as a container: the image that the Dockerfile makes around the program, run by dockerd as a user without rights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::docker::Dockerd;
use super::host;
use super::images::digest;
use super::layby;
use super::scene::{Scene, stock};

/// The user and group of the image.
const USER: &str = "65532:65532";
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A container, which is removed when it is dropped.
struct Container<'a>(&'a Dockerd);

impl Container<'_> {
    const NAME: &'static str = "layby";
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let mut remove = self.0.command(&["rm", "--force", Self::NAME]);
        let _ = remove.output();
    }
}

/// A root directory with the program, what it is linked to, and certificates: what a base image brings otherwise.
fn make_root(root: &Path) {
    let program = layby::program();
    copy(&program, &root.join("usr/local/bin/layby"));
    let certificates = Path::new(CERTIFICATES);
    copy(certificates, &inside(root, certificates));
    let libraries = host::output(Command::new("ldd").arg(&program));
    let libraries = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for library in libraries.map(Path::new) {
        copy(library, &inside(root, library));
    }
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

#[test]
fn the_image_of_the_dockerfile_serves_a_pull_as_a_user_without_rights() {
    if !host::has(&["dockerd", "docker", "containerd", "runc", "ldd"]) {
        return;
    }
    let scene = Scene::start();
    let daemon_json = scene.folder("docker").join("daemon.json");
    fs::write(&daemon_json, "{}").unwrap();
    let dockerd = Dockerd::start(&scene, &daemon_json);

    let context = scene.folder("context");
    make_root(&context.join("rootfs"));
    let dockerfile = concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile");
    let context = context.display().to_string();
    let mut build = dockerd.command(&["build", "--quiet", "--target=packaged", "--tag=layby"]);
    build
        .env("DOCKER_BUILDKIT", "0")
        .args(["--build-arg=BASE=scratch", "--build-arg=ROOT=rootfs"])
        .args(["--file", dockerfile, &context]);
    host::output(&mut build);
    let user = dockerd.docker(&["image", "inspect", "--format", "{{.Config.User}}", "layby"]);
    assert_eq!(user, USER);

    let port = host::free_port();
    let config = scene.folder("container").join("layby.toml");
    let text = format!(
        "[admin]\nlisten = \"none\"\n[upstreams.\"docker.io\"]\nurl = \"{}\"\n",
        scene.open.url()
    );
    fs::write(&config, text).unwrap();
    let _container = Container(&dockerd);
    dockerd.docker(&[
        "run",
        "--detach",
        "--name",
        Container::NAME,
        "--network=host",
        "--volume",
        &format!("{}:/etc/layby.toml:ro", config.display()),
        "--env",
        &format!("LAYBY_LISTEN=127.0.0.1:{port}"),
        "--env",
        "LAYBY_CONFIG=/etc/layby.toml",
        "layby",
    ]);
    host::eventually("Layby in its container", || {
        host::answers(port, "/healthz").then_some(())
    });
    let process = dockerd.docker(&["inspect", "--format", "{{.State.Pid}}", Container::NAME]);
    let status = host::read(Path::new(&format!("/proc/{process}/status")));
    assert!(status.contains("\nUid:\t65532\t65532\t"), "{status}");
    let layby = "/usr/local/bin/layby";
    dockerd.docker(&["exec", Container::NAME, layby, "healthcheck"]);

    let image = &stock().demo;
    let target = scene.folder("target");
    let mut skopeo = scene.client("skopeo");
    skopeo
        .args(["--insecure-policy", "copy", "--src-tls-verify=false"])
        .arg(format!("docker://127.0.0.1:{port}/{}", image.name()))
        .arg(format!("dir:{}", target.display()));
    host::output(&mut skopeo);
    for blob in image.own().blobs() {
        let content = fs::read(target.join(blob.trim_start_matches("sha256:"))).unwrap();
        assert_eq!(digest(&content), *blob);
    }
    let logs = dockerd
        .command(&["logs", Container::NAME])
        .output()
        .unwrap();
    let logs = String::from_utf8_lossy(&logs.stderr).into_owned();
    let requests = layby::requests(logs.lines());
    for blob in image.own().blobs() {
        let served = requests
            .iter()
            .any(|request| request.reference() == blob && request.is_whole());
        assert!(served, "{blob} in {logs}");
    }
}
