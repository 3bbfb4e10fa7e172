//! Across an air gap, whole: images of several platforms are brought in, the registries disappear, the images are carried
//! over in a file, and every client pulls them on the other side from a Layby that knows nobody to ask.

use std::fs;
use std::path::{Path, PathBuf};

use super::containerd::{self, Containerd, write_hosts};
use super::docker::{self, Dockerd};
use super::host;
use super::images::{Image, Platform, digest};
use super::podman;
use super::scene::{Scene, stock};
use super::skopeo::write_empty;
use super::story::{At, Way as _};

/// Every image of the stock that differs, with whom has it.
fn carried() -> [At<'static>; 3] {
    let stock = stock();
    [
        ("docker.io", &stock.demo),
        ("docker.io", &stock.app),
        ("registry.test", &stock.private),
    ]
    .map(|(upstream, image)| At { upstream, image })
}

fn full_name(at: At<'_>) -> String {
    format!("{}/{}", at.upstream, at.image.name())
}

/// The digest of the image's index.
fn index(image: &Image) -> String {
    digest(&fs::read(laid_out(image).join("manifest.json")).unwrap())
}

/// Where the image was made.
fn laid_out(image: &Image) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("clients")
        .join(&image.repository)
}

/// The command `name` of the program, which asks the server that runs.
fn layby(scene: &Scene, name: &str, args: &[&str]) -> String {
    host::output(scene.layby.command(name).args(args))
}

/// Has the server answer operators.
fn with_admin(scene: &mut Scene) {
    let port = host::free_port();
    let listen = format!("listen = \"127.0.0.1:{port}\"");
    scene.layby.edit("listen = \"none\"", &listen);
    scene.layby.restart();
}

/// On this side: brings the images in, loses the registries, and writes the images to a file; for skopeo to a folder, too, and
/// the one with Docker's media types to a folder of its own.
fn leave(scene: &mut Scene, to: &Path) -> Parcel {
    with_admin(scene);
    let names = carried().map(full_name);
    let mut args = vec!["--platform", "linux/amd64,linux/arm64"];
    args.extend(names.iter().map(String::as_str));
    layby(scene, "warm", &args);
    scene.open.kill();
    scene.locked.kill();
    let parcel = Parcel {
        file: to.join("images.tar"),
        folder: to.join("images"),
        alone: to.join("alone"),
    };
    for (to, names) in [
        (parcel.file.display().to_string(), &names[..]),
        (format!("{}/", parcel.folder.display()), &names[..]),
        (format!("{}/", parcel.alone.display()), &names[..1]),
    ] {
        let mut args = vec!["--output", to.as_str()];
        args.extend(names.iter().map(String::as_str));
        layby(scene, "export", &args);
    }
    parcel
}

/// What is carried over, and the same as skopeo finds it: among several images it passes over those with Docker's types.
struct Parcel {
    file: PathBuf,
    folder: PathBuf,
    alone: PathBuf,
}

/// On the other side: the same port, another data directory, and nobody to ask.
fn arrive(scene: &mut Scene, file: &Path) {
    let site = scene.folder("site");
    let home = scene.folder("layby");
    scene.layby.edit(
        &format!("data_dir = \"{}\"", home.display()),
        &format!("data_dir = \"{}\"\noffline = true", site.display()),
    );
    scene.layby.restart();
    layby(scene, "import", &[&file.display().to_string()]);
}

/// The name by which an image layout has an image.
fn name_in(folder: &Path, image: &Image) -> String {
    let named: serde_json::Value =
        serde_json::from_str(&host::read(&folder.join("index.json"))).unwrap();
    let entries = named["manifests"].as_array().unwrap();
    let entry = entries
        .iter()
        .find(|entry| entry["digest"] == *index(image));
    let name = &entry.unwrap()["annotations"]["org.opencontainers.image.ref.name"];
    name.as_str().unwrap().to_owned()
}

/// skopeo finds each image in the folders, whole.
fn check_with_skopeo(scene: &Scene, parcel: &Parcel) {
    let [docker, others @ ..] = carried();
    let alone = format!("oci:{}", parcel.alone.display());
    let mut sources = vec![(docker, alone)];
    for at in others {
        let name = name_in(&parcel.folder, at.image);
        sources.push((at, format!("oci:{}:{name}", parcel.folder.display())));
    }
    for (at, source) in sources {
        let mut skopeo = scene.client("skopeo");
        let raw = host::output(skopeo.args(["inspect", "--raw", &source]));
        assert_eq!(digest(raw.as_bytes()), index(at.image), "{source}");
        let target = scene.folder("copied").join(&at.image.repository);
        fs::create_dir_all(&target).unwrap();
        let mut skopeo = scene.client("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--all", &source]);
        host::output(skopeo.arg(format!("dir:{}", target.display())));
        for blob in at.image.platforms.iter().flat_map(Platform::blobs) {
            let content = fs::read(target.join(blob.trim_start_matches("sha256:"))).unwrap();
            assert_eq!(digest(&content), *blob);
        }
    }
}

/// By tag and by digest, through the mirror and by the name that has Layby in it.
fn pull_with_docker(scene: &Scene) {
    let daemon_json = scene.folder("docker").join("daemon.json");
    let port = scene.layby.port();
    let mirrors = serde_json::json!({ "registry-mirrors": [format!("http://127.0.0.1:{port}")] });
    fs::write(&daemon_json, mirrors.to_string()).unwrap();
    for at in carried() {
        let dockerd = Dockerd::start(scene, &daemon_json);
        let repository = match at.upstream {
            "docker.io" => at.image.repository.clone(),
            other => format!("127.0.0.1:{port}/{other}/{}", at.image.repository),
        };
        let image = Image {
            repository: repository.clone(),
            ..at.image.clone()
        };
        let pull = docker::Pull {
            dockerd,
            image: &image,
        };
        pull.pull();
        pull.forget();
        let by_digest = format!("{repository}@{}", index(at.image));
        pull.dockerd.docker(&["pull", &by_digest]);
        let id = ["image", "inspect", "--format", "{{.Id}}", &by_digest];
        assert_eq!(pull.dockerd.docker(&id), at.image.own().config);
        pull.dockerd.docker(&["image", "rm", "--force", &by_digest]);
    }
}

/// By tag and by digest, every platform.
fn pull_with_containerd(scene: &Scene) {
    let hosts = scene.folder("hosts");
    let url = format!("http://127.0.0.1:{}", scene.layby.port());
    write_hosts(&hosts, "_default", &url, "");
    let mut containerd = Containerd::start(scene);
    for at in carried() {
        let pull = containerd::Pull {
            containerd,
            hosts: hosts.clone(),
            at,
            all_platforms: true,
        };
        pull.pull();
        pull.forget();
        let hosts = format!("--hosts-dir={}", hosts.display());
        let name = format!(
            "{}/{}@{}",
            at.upstream,
            at.image.repository,
            index(at.image)
        );
        let args = ["images", "pull", "--snapshotter=native", "--all-platforms"];
        let args: Vec<&str> = args.into_iter().chain([&*hosts, &*name]).collect();
        pull.containerd.ctr(&args);
        let content = pull.containerd.ctr(&["content", "ls", "--quiet"]);
        for blob in at.image.platforms.iter().flat_map(Platform::blobs) {
            assert!(content.contains(blob.as_str()), "{blob} in {content}");
        }
        pull.containerd.ctr(&["images", "rm", "--sync", &name]);
        containerd = pull.containerd;
    }
}

/// By tag and by digest, by names that have Layby in them.
fn pull_with_podman(scene: &Scene) {
    let registries = write_empty(scene);
    for at in carried() {
        let repository = format!(
            "127.0.0.1:{}/{}/{}",
            scene.layby.port(),
            at.upstream,
            at.image.repository
        );
        for name in [
            format!("{repository}:{}", at.image.tag),
            format!("{repository}@{}", index(at.image)),
        ] {
            let pull = podman::Pull::new(scene, &registries, name, at);
            pull.pull();
            pull.forget();
        }
    }
}

#[test]
fn every_client_pulls_across_a_gap_what_was_brought_in_before_it() {
    if !host::has(&["dockerd", "docker", "containerd", "ctr", "podman"]) {
        return;
    }
    let mut scene = Scene::start();
    let folder = scene.folder("parcel");
    let parcel = leave(&mut scene, &folder);
    check_with_skopeo(&scene, &parcel);
    arrive(&mut scene, &parcel.file);
    pull_with_docker(&scene);
    pull_with_containerd(&scene);
    pull_with_podman(&scene);
    assert_eq!(scene.trap.caught(), [""; 0], "went past Layby");
}
