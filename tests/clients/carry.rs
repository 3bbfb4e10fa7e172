//! Images in files: what Layby exports is read by others, and what others have saved is imported.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::docker::Dockerd;
use super::host;
use super::images::{Image, digest};
use super::podman;
use super::scene::{Scene, stock};
use super::skopeo::{self, Copy};
use super::story::{At, Way as _};

const UPSTREAM: &str = "docker.io";

/// A scene whose Layby has pulled an image for this machine's platform, and has stopped.
fn pulled(image: &Image) -> Scene {
    let mut scene = Scene::start();
    let at = At {
        upstream: UPSTREAM,
        image,
    };
    let source = format!(
        "127.0.0.1:{}/{UPSTREAM}/{}",
        scene.layby.port(),
        image.name()
    );
    Copy::new(&scene, skopeo::write_empty(&scene), source, at).pull();
    scene.layby.stop();
    scene
}

fn layby(scene: &Scene, args: &[&str]) -> String {
    host::output(scene.layby.command(args[0]).args(&args[1..]))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn skopeo(args: &[&str]) -> String {
    host::output(host::command("skopeo").arg("--insecure-policy").args(args))
}

#[test]
fn skopeo_reads_an_export_as_directory_and_as_tar() {
    if !host::has(&[]) {
        return;
    }
    // skopeo finds images with Docker's media types where they are alone, and others by their tags too.
    for (image, chosen) in [
        (&stock().app, ":v1"),
        (&stock().app, ""),
        (&stock().small, ""),
    ] {
        let scene = pulled(image);
        let folder = scene.folder("exports");
        let (dir, tar) = (folder.join("images"), folder.join("images.tar"));
        let to_dir = format!("{}/", text(&dir));
        for to in [&*to_dir, text(&tar)] {
            layby(&scene, &["export", "-o", to, &image.name()]);
        }
        let about = skopeo(&[
            "inspect",
            "--no-tags",
            &format!("oci:{}{chosen}", text(&dir)),
        ]);
        let about: Value = serde_json::from_str(&about).unwrap();
        let layers = about["Layers"].as_array().unwrap();
        assert_eq!(layers.len(), image.own().layers.len());
        let target = folder.join("target");
        let from = format!("oci-archive:{}{chosen}", text(&tar));
        skopeo(&["copy", &from, &format!("dir:{}", text(&target))]);
        for blob in image.own().blobs() {
            let content = fs::read(target.join(blob.trim_start_matches("sha256:"))).unwrap();
            assert_eq!(digest(&content), *blob);
        }
    }
}

#[test]
fn podman_loads_an_export_under_its_name() {
    if !host::has(&["podman"]) {
        return;
    }
    let image = &stock().small;
    let scene = pulled(image);
    let tar = scene.folder("exports").join("images.tar");
    layby(&scene, &["export", "-o", text(&tar), &image.name()]);
    let at = At {
        upstream: UPSTREAM,
        image,
    };
    let name = format!("{UPSTREAM}/{}", image.name());
    let podman = podman::Pull::new(&scene, &skopeo::write_empty(&scene), name, at);
    podman.load(&tar);
}

#[test]
fn an_image_layout_of_skopeo_is_imported_and_pulled() {
    if !host::has(&[]) {
        return;
    }
    let image = &stock().app;
    let mut scene = Scene::start();
    let folder = scene.folder("layouts");
    let (dir, tar) = (folder.join("layout"), folder.join("layout.tar"));
    let registry = format!("docker://127.0.0.1:{}/{}", scene.open.port(), image.name());
    for to in [
        format!("oci:{}:v1", text(&dir)),
        format!("oci-archive:{}:v1", text(&tar)),
    ] {
        skopeo(&["copy", "--all", "--src-tls-verify=false", &registry, &to]);
    }
    scene.layby.stop();
    scene.open.kill();
    layby(
        &scene,
        &["import", text(&dir), "--as", "registry.test/by/dir"],
    );
    layby(
        &scene,
        &["import", text(&tar), "--as", "registry.test/by/tar:v2"],
    );
    scene.layby.restart();
    for name in ["by/dir:v1", "by/tar:v2"] {
        let target = folder.join("target");
        let from = format!(
            "docker://127.0.0.1:{}/registry.test/{name}",
            scene.layby.port()
        );
        let to = format!("dir:{}", text(&target));
        skopeo(&["copy", "--all", "--src-tls-verify=false", &from, &to]);
        for platform in &image.platforms {
            for blob in &platform.layers {
                let content = fs::read(target.join(blob.trim_start_matches("sha256:"))).unwrap();
                assert_eq!(digest(&content), *blob);
            }
        }
        fs::remove_dir_all(&target).unwrap();
    }
}

#[test]
fn dockerd_loads_an_export_and_what_it_saves_is_imported_and_pulled() {
    if !host::has(&["dockerd", "docker", "containerd"]) {
        return;
    }
    let image = &stock().small;
    let mut scene = pulled(image);
    let folder = scene.folder("exports");
    let (tar, saved) = (folder.join("images.tar"), folder.join("saved.tar"));
    layby(&scene, &["export", "-o", text(&tar), &image.name()]);
    let daemon_json = scene.folder("docker").join("daemon.json");
    let mirrors = serde_json::json!({
        "registry-mirrors": [format!("http://127.0.0.1:{}", scene.layby.port())],
    });
    fs::write(&daemon_json, mirrors.to_string()).unwrap();
    let dockerd = Dockerd::start(&scene, &daemon_json);
    let name = image.name();
    dockerd.docker(&["load", "--input", text(&tar)]);
    let layers = "{{range .RootFS.Layers}} {{.}}{{end}}";
    let inspect = ["image", "inspect", "--format", layers, &name];
    let loaded = dockerd.docker(&inspect);
    assert_eq!(loaded.trim(), image.own().diff_ids.join(" "));

    dockerd.docker(&["save", "--output", text(&saved), &name]);
    dockerd.docker(&["image", "rm", "--force", &name]);
    // Elsewhere, where nobody has ever seen it.
    scene.layby.edit("/layby\"", "/elsewhere\"");
    scene.open.kill();
    let told = layby(&scene, &["import", text(&saved)]);
    assert!(
        told.contains(&format!("imported {UPSTREAM}/{name}")),
        "{told}"
    );
    scene.layby.restart();
    dockerd.docker(&["pull", &name]);
    assert_eq!(
        dockerd.docker(&inspect).trim(),
        image.own().diff_ids.join(" ")
    );
}
