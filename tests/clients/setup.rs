//! The set-up files in `config/clients/`, each used as it stands, by the client that it is for; and files with settings that
//! `layby setup` adds to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::containerd::{self, Containerd};
use super::docker::{self, Dockerd};
use super::host;
use super::layby;
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
    let at = on_docker_hub();
    let name = format!("docker.io/{}", at.image.name());
    let pull = podman::Pull::new(&scene, &registries, name, at);
    story::cold_and_warm(&scene, &pull, at);
    let at = At {
        image: &stock().app,
        ..at
    };
    let source = format!("docker.io/{}", at.image.name());
    let copy = skopeo::Copy::new(&scene, registries, source, at);
    story::cold_and_warm(&scene, &copy, at);
}

/// `layby setup CLIENT … --write` for the mirror of a scene; what it printed.
fn set_up(scene: &Scene, client: &str, more: &[&str]) -> String {
    let mut command = Command::new(layby::program());
    command
        .args(["setup", client, "--write", "--mirror"])
        .arg(format!("http://127.0.0.1:{}", scene.layby.port()))
        .args(more);
    host::output(&mut command)
}

/// The same twice: the second time changes nothing.
fn set_up_twice(scene: &Scene, client: &str, more: &[&str]) {
    let first = set_up(scene, client, more);
    assert!(first.contains(": written, was "), "{first}");
    let second = set_up(scene, client, more);
    assert!(!second.contains("written"), "{second}");
    assert!(second.contains(": nothing to change"), "{second}");
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn dockerd_pulls_with_a_file_that_was_added_to_and_keeps_its_settings() {
    if !host::has(&["dockerd", "docker", "containerd"]) {
        return;
    }
    let scene = Scene::start();
    let daemon_json = scene.folder("docker").join("daemon.json");
    let old = "{\n\t\"labels\": [\"site=here\"],\n\t\"max-concurrent-downloads\": 2\n}\n";
    write(&daemon_json, old);
    set_up_twice(&scene, "docker", &["--file", daemon_json.to_str().unwrap()]);
    let text = host::read(&daemon_json);
    for line in old.lines() {
        assert!(text.lines().any(|kept| kept == line), "{line} in {text}");
    }
    let at = on_docker_hub();
    let dockerd = Dockerd::start(&scene, &daemon_json);
    assert_eq!(
        dockerd.docker(&["info", "--format", "{{.Labels}}"]),
        "[site=here]"
    );
    let image = at.image;
    story::cold_and_warm(&scene, &docker::Pull { dockerd, image }, at);
}

#[test]
fn containerd_starts_and_pulls_with_files_that_were_added_to() {
    if !host::has(&["containerd", "ctr"]) {
        return;
    }
    let scene = Scene::start();
    let root = scene.folder("root");
    let hosts = root.join("etc/containerd/certs.d");
    let of_hub = hosts.join("docker.io/hosts.toml");
    // A host that would be asked first, and is not there.
    write(
        &of_hub,
        "server = \"https://registry-1.docker.io\"\n\n[host.\"http://127.0.0.1:9\"] # old\n  capabilities = [\"pull\", \"resolve\"]\n",
    );
    let config = root.join("etc/containerd/config.toml");
    // With its CRI plugin, which does not start with a registry's settings that it does not take.
    let own = containerd::config(&scene).replace("\"io.containerd.grpc.v1.cri\"", "");
    let cri = "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x/pause:1\" # mine\n";
    write(&config, &format!("{own}\n{cri}"));
    let arguments = ["--root", root.to_str().unwrap(), "--registry", "docker.io"];
    set_up_twice(&scene, "containerd", &arguments);
    let text = host::read(&config);
    assert!(text.contains(cri), "{text}");
    assert!(
        text.contains("config_path = \"/etc/containerd/certs.d\""),
        "{text}"
    );
    assert!(host::read(&of_hub).contains("[host.\"http://127.0.0.1:9\"] # old\n"));
    let pull = containerd::Pull {
        containerd: Containerd::start_with(&scene, &config),
        hosts,
        at: on_docker_hub(),
        all_platforms: false,
    };
    let plugins = pull.containerd.ctr(&["plugins", "ls", "id==cri"]);
    assert!(plugins.contains(" ok"), "{plugins}");
    story::cold_and_warm(&scene, &pull, pull.at);
}

#[test]
fn podman_and_skopeo_pull_with_a_file_that_was_added_to() {
    if !host::has(&["podman"]) {
        return;
    }
    let scene = Scene::start();
    let registries = scene.folder("containers").join("registries.conf");
    // Its short names, and a mirror that is not there.
    write(
        &registries,
        "unqualified-search-registries = [\"docker.io\"] # mine\n\n[[registry]]\nlocation = \"docker.io\"\n\n[[registry.mirror]]\nlocation = \"127.0.0.1:9/old\"\ninsecure = true\n",
    );
    set_up_twice(&scene, "podman", &["--file", registries.to_str().unwrap()]);
    assert!(host::read(&registries).contains("127.0.0.1:9/old"));
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

#[test]
fn containerd_trusts_a_mirror_that_speaks_tls_by_the_authority_that_it_is_told() {
    if !host::has(&["containerd", "ctr"]) {
        return;
    }
    let mut scene = Scene::start();
    let folder = scene.folder("tls");
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = host::free_port();
    let listener = format!(
        "[tls]\nlisten = \"127.0.0.1:{port}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n[log]",
        certificate.display(),
        key.display()
    );
    scene.layby.edit("[log]", &listener);
    scene.layby.restart();
    let root = scene.folder("root");
    let mut setup = Command::new(layby::program());
    setup
        .args(["setup", "containerd", "--write", "--mirror"])
        .arg(format!("https://127.0.0.1:{port}"))
        .arg("--ca")
        .arg(&certificate)
        .arg("--root")
        .arg(&root);
    host::output(&mut setup);
    let pull = containerd::Pull {
        containerd: Containerd::start(&scene),
        hosts: root.join("etc/containerd/certs.d"),
        at: on_docker_hub(),
        all_platforms: false,
    };
    story::cold_and_warm(&scene, &pull, pull.at);
}
