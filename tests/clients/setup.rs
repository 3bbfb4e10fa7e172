//! The set-up files in `config/clients/`, each used as it stands, by the client that it is for.

use std::path::{Path, PathBuf};

use super::containerd::{self, Containerd};
use super::docker::{self, Dockerd};
use super::host;
use super::podman;
use super::scene::{Scene, stock};
use super::skopeo;
use super::story::{self, At, Way};

/// Where the files expect Layby.
const PORT: u16 = 5000;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config/clients")
        .join(name)
}

fn on_docker_hub() -> At<'static> {
    At {
        upstream: "docker.io",
        image: &stock().demo,
    }
}

#[test]
fn dockerds_file_works_as_it_stands() {
    if !host::has(&["dockerd", "docker", "containerd"]) {
        return;
    }
    let scene = Scene::on(PORT);
    let at = on_docker_hub();
    let dockerd = Dockerd::start(&scene, &file("docker/daemon.json"));
    let image = at.image;
    story::cold_and_warm(&scene, &docker::Pull { dockerd, image }, at);
}

#[test]
fn containerds_files_work_as_they_stand() {
    if !host::has(&["containerd", "ctr"]) {
        return;
    }
    let scene = Scene::on(PORT);
    let private = At {
        upstream: "registry.test",
        image: &stock().private,
    };
    let mut pull = containerd::Pull {
        containerd: Containerd::start(&scene),
        hosts: file("containerd"),
        at: on_docker_hub(),
        all_platforms: false,
    };
    story::cold_and_warm(&scene, &pull, pull.at);
    pull.forget();
    // It has no directory of its own, so `_default` is used.
    pull.at = private;
    story::cold_and_warm(&scene, &pull, private);
}

#[test]
fn podmans_and_skopeos_file_works_as_it_stands() {
    if !host::has(&["podman"]) {
        return;
    }
    let scene = Scene::on(PORT);
    let registries = file("podman/registries.conf");
    // By its short name, for which the file says where to look.
    let at = on_docker_hub();
    let pull = podman::Pull::new(&scene, &registries, "demo".to_owned(), at);
    story::cold_and_warm(&scene, &pull, at);
    let at = At {
        image: &stock().app,
        ..at
    };
    let source = format!("docker.io/{}", at.image.name());
    let copy = skopeo::Copy::new(&scene, registries, source, at);
    story::cold_and_warm(&scene, &copy, at);
}
