//! The guides in `docs/guides/`: their files are read, and their commands run, as they stand there.
//!
//! A block that follows `<!-- run: WHO -->` is a script of WHO's, one that follows `<!-- file: NAME -->` a file for the
//! scripts. They run in a folder that stands for a machine: paths in `/etc` lead into it, `systemctl` starts what it names
//! from there, and images are looked up in the scene's registry instead of Docker Hub.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::layby::config::{Config, Overrides};
use toml_edit::{DocumentMut, value};

use super::docker::Dockerd;
use super::host::{self, Daemon};
use super::layby;
use super::scene::{Scene, stock};

/// A block of a guide.
struct Block {
    /// What the comment before it says: `run: server`, `file: layby.toml`; empty without one.
    mark: String,
    /// `sh`, `toml`, `yaml`.
    kind: String,
    text: String,
}

/// The blocks of a guide, in order.
fn blocks(guide: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/guides")
        .join(guide);
    let text = host::read(&path);
    let mut blocks = Vec::new();
    let mut mark = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block {
                mark: std::mem::take(&mut mark),
                kind: kind.to_owned(),
                text: body.join("\n") + "\n",
            });
        } else if let Some(comment) = line.strip_prefix("<!-- ") {
            comment.trim_end_matches(" -->").clone_into(&mut mark);
        } else if !line.is_empty() {
            mark.clear();
        }
    }
    blocks
}

/// A machine of a guide: a folder with its `/etc`, its services, and the programs that its scripts call.
struct Machine<'a> {
    scene: &'a Scene,
    folder: PathBuf,
    services: RefCell<Services>,
}

#[derive(Default)]
struct Services {
    layby: Option<Daemon>,
    dockerd: Option<Dockerd>,
    asked: Vec<String>,
}

/// Where guides have Layby listen.
const PORT: u16 = 5000;

/// What guides name, and what stands for it in the scene's registry.
const IMAGES: [(&str, &str); 3] = [
    ("alpine:3.20", "small:latest"),
    ("example/app:1.0", "org/app:v1"),
    // By its tag alone.
    ("images.tar:1.0", "images.tar:v1"),
];

impl<'a> Machine<'a> {
    fn new(scene: &'a Scene, name: &str) -> Self {
        let folder = scene.folder(name);
        let machine = Self {
            scene,
            folder,
            services: RefCell::default(),
        };
        let programs = machine.folder.join("bin");
        fs::create_dir_all(&programs).unwrap();
        let program = layby::program();
        let root = machine.folder.display().to_string();
        // `setup` writes to this machine's files.
        machine.program(
            "layby",
            &format!(
                "if [ \"$1\" = setup ]; then exec {0} \"$@\" --root {root}; fi\nexec {0} \"$@\"",
                program.display()
            ),
        );
        machine.program("systemctl", &format!("echo \"$*\" >> {root}/systemctl"));
        machine
    }

    /// A program that scripts find first.
    fn program(&self, name: &str, script: &str) {
        let path = self.folder.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A file beside the scripts.
    fn file(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, self.here(text)).unwrap();
    }

    /// What a guide says, with this machine's paths and the scene's images.
    fn here(&self, text: &str) -> String {
        let root = self.folder.display().to_string();
        let text = text.replace("/etc/", &format!("{root}/etc/"));
        IMAGES
            .iter()
            .fold(text, |text, (named, here)| text.replace(named, here))
    }

    /// Runs a script, and has happen what it told `systemctl`, line by line; what it printed.
    fn run(&self, script: &str) -> String {
        let mut printed = String::new();
        // A service must be up before the next command: each command of its own.
        for command in script.replace("\\\n", " ").lines() {
            let output = host::output(
                Command::new("bash")
                    .args(["-euo", "pipefail", "-c", &self.here(command)])
                    .current_dir(&self.folder)
                    .envs(self.scene.environment())
                    .env("PATH", self.path())
                    .env("MIRROR", format!("http://127.0.0.1:{PORT}"))
                    .env("LAYBY_CONFIG", self.effective())
                    .env("LAYBY_DATA_DIR", self.folder.join("data")),
            );
            printed.push_str(&output);
            self.serve();
        }
        printed
    }

    fn path(&self) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{}:{path}", self.folder.join("bin").display())
    }

    /// The configuration that the server runs with: the guide's, with the scene's registry for Docker Hub.
    fn effective(&self) -> PathBuf {
        let written = self.folder.join("etc/layby/layby.toml");
        let text = fs::read_to_string(written).unwrap_or_default();
        let mut config: DocumentMut = text.parse().unwrap();
        config["upstreams"]["docker.io"]["url"] = value(self.scene.open.url());
        config["upstreams"]["docker.io"]
            .as_table_like_mut()
            .unwrap()
            .remove("credentials");
        for name in [
            "ghcr.io",
            "quay.io",
            "gcr.io",
            "k8s.gcr.io",
            "registry.k8s.io",
            "mcr.microsoft.com",
            "cgr.dev",
            "docker.elastic.co",
            "lscr.io",
            "mirror.gcr.io",
            "nvcr.io",
            "public.ecr.aws",
            "registry.access.redhat.com",
            "registry.gitlab.com",
            "registry.redhat.io",
        ] {
            // Nobody outside is to be asked.
            config["upstreams"][name]["allow"] = value(toml_edit::Array::new());
        }
        config["cache"]["min_free"] = value("0B");
        let path = self.folder.join("effective.toml");
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Does what `systemctl` was told since it was last looked at.
    fn serve(&self) {
        let told = fs::read_to_string(self.folder.join("systemctl")).unwrap_or_default();
        let mut services = self.services.borrow_mut();
        let done = services.asked.len();
        for order in told.lines().skip(done) {
            services.asked.push(order.to_owned());
            match order {
                "enable --now layby" => services.layby = Some(self.start_layby()),
                "reload docker" => {
                    let file = self.folder.join("etc/docker/daemon.json");
                    let dockerd = Dockerd::start(self.scene, &file);
                    let socket = dockerd.socket().display();
                    self.program(
                        "docker",
                        &format!("exec /usr/bin/docker --host=unix://{socket} \"$@\""),
                    );
                    services.dockerd = Some(dockerd);
                }
                "restart containerd" => {}
                other => panic!("systemctl {other}"),
            }
        }
    }

    fn start_layby(&self) -> Daemon {
        let data = self.folder.join("data");
        let config = self.effective();
        let args = [
            "serve".as_ref(),
            "--config".as_ref(),
            config.as_os_str(),
            "--data-dir".as_ref(),
            data.as_os_str(),
        ];
        let mut daemon = Daemon::start(
            layby::program(),
            args,
            &self.scene.environment(),
            &self.folder.join("log"),
        );
        daemon.until(|| host::answers(PORT, "/healthz"));
        daemon
    }

    fn asked(&self) -> Vec<String> {
        self.services.borrow().asked.clone()
    }
}

/// All scripts of these, in the order of the guide; what they printed.
fn run(machine: &Machine<'_>, guide: &[Block], who: &[&str]) -> String {
    let mut printed = String::new();
    for block in guide {
        if let Some(name) = block.mark.strip_prefix("file: ") {
            machine.file(name, &block.text);
        }
        if block
            .mark
            .strip_prefix("run: ")
            .is_some_and(|script| who.contains(&script))
        {
            printed.push_str(&machine.run(&block.text));
        }
    }
    printed
}

#[test]
fn what_guides_show_can_be_read() {
    for guide in ["air-gap.md", "ci.md", "replace.md"] {
        let blocks = blocks(guide);
        assert!(
            blocks.iter().any(|block| block.mark.starts_with("run: ")),
            "{guide}"
        );
        for block in blocks {
            let Block { mark, kind, text } = &block;
            match kind.as_str() {
                "toml" => {
                    let config = Config::from_toml(text, &Overrides::default());
                    config.unwrap_or_else(|faults| panic!("{guide}: {faults}"));
                }
                "yaml" => {
                    let mut events = saphyr_parser::Parser::new_from_str(text);
                    assert!(events.all(|event| event.is_ok()), "{guide}: {text}");
                }
                "sh" | "nginx" | "text" => {}
                other => panic!("{guide}: a block of {other:?}, {mark}"),
            }
        }
    }
}

#[test]
fn the_guide_for_an_air_gap_does_what_it_says_once_the_registry_is_gone() {
    if !host::has(&["dockerd", "docker", "containerd", "bash"]) {
        return;
    }
    let mut scene = Scene::start();
    let guide = blocks("air-gap.md");
    let here = scene.folder("connected");
    let connected = Machine::new(&scene, "connected");
    run(&connected, &guide, &["connected"]);
    drop(connected);
    scene.open.kill();
    let asked = scene.open.served().len();

    let site = Machine::new(&scene, "site");
    for name in ["images.tar", "images.tar.sha256"] {
        fs::copy(here.join(name), site.folder.join(name)).unwrap();
    }
    fs::copy(here.join("site/layby.toml"), site.folder.join("layby.toml")).unwrap();
    let printed = run(&site, &guide, &["site"]);
    assert!(
        printed.contains("library/small") && printed.contains("org/app"),
        "{printed}"
    );
    let dockerd = &site.services.borrow().dockerd;
    let images =
        dockerd
            .as_ref()
            .unwrap()
            .docker(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]);
    for name in ["small:latest", "org/app:v1"] {
        assert!(images.lines().any(|image| image == name), "{images}");
    }
    assert_eq!(scene.open.served().len(), asked);
    assert_eq!(scene.trap.caught(), [""; 0]);
}

#[test]
fn the_guide_for_ci_does_what_it_says() {
    if !host::has(&["dockerd", "docker", "containerd", "podman", "bash"]) {
        return;
    }
    let scene = Scene::start();
    let machine = Machine::new(&scene, "ci");
    let guide = blocks("ci.md");
    machine.file("Dockerfile", "FROM alpine:3.20\nLABEL a=b\n");
    let policy = r#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#;
    machine.file("policy.json", policy);
    let root = machine.folder.display().to_string();
    machine.program("podman", &format!(
        "export CONTAINERS_REGISTRIES_CONF={root}/etc/containers/registries.conf.d/050-layby.conf\nverb=$1; shift\n\
         exec /usr/bin/podman --root {root}/podman --runroot {root}/run --tmpdir {root}/tmp --storage-driver=vfs \
         --events-backend=none --cgroup-manager=cgroupfs $verb --signature-policy {root}/policy.json \"$@\""
    ));
    let server = run(&machine, &guide, &["server"]);
    assert!(server.contains("answers, and is a Layby"), "{server}");
    let everyone = [
        "runner", "node", "podman", "buildkit", "kaniko", "warm", "result",
    ];
    let printed = run(&machine, &guide, &everyone);
    assert_eq!(
        machine.asked(),
        ["enable --now layby", "reload docker", "restart containerd"]
    );
    for (what, file) in [
        ("mirrors = [\"127.0.0.1:5000/ghcr.io\"]", "buildkitd.toml"),
        (
            "http://127.0.0.1:5000",
            "etc/containerd/certs.d/_default/hosts.toml",
        ),
    ] {
        let text = host::read(&machine.folder.join(file));
        assert!(text.contains(what), "{file}: {text}");
    }
    assert!(
        printed.contains("--registry-mirror=127.0.0.1:5000/docker.io"),
        "{printed}"
    );
    assert!(
        printed.contains("library/small") && printed.contains("org/app"),
        "{printed}"
    );
    // docker, a build, podman and warm: one fetch of each blob, all by Layby.
    let small = &stock().small;
    for blob in small.own().blobs() {
        let path = format!("/v2/{}/blobs/{blob}", small.repository);
        let served = scene.open.served();
        let gets: Vec<_> = served
            .iter()
            .filter(|asked| asked.method == "GET" && asked.uri == path)
            .collect();
        assert_eq!(gets.len(), 1, "{gets:?}");
        assert!(gets[0].agent.starts_with("layby/"), "{gets:?}");
    }
    assert_eq!(scene.trap.caught(), [""; 0]);
}

#[test]
fn the_guide_for_those_who_had_another_cache_does_what_it_says() {
    if !host::has(&["dockerd", "docker", "containerd", "nginx", "bash"]) {
        return;
    }
    let scene = Scene::start();
    let machine = Machine::new(&scene, "replace");
    let guide = blocks("replace.md");
    machine.file("hub.password", "secret\n");
    let old = "{\n  \"registry-mirrors\": [\"http://127.0.0.1:5001\"]\n}\n";
    machine.file("etc/docker/daemon.json", old);
    run(&machine, &guide, &["distribution"]);
    let client = run(&machine, &guide, &["client"]);
    assert!(client.contains("+  \"registry-mirrors\""), "{client}");
    let text = host::read(&machine.folder.join("etc/docker/daemon.json"));
    assert!(
        text.contains("[\"http://127.0.0.1:5000\", \"http://127.0.0.1:5001\"]"),
        "{text}"
    );

    // What was before is what those programs take.
    let before = |name: &str| {
        let mark = format!("file: {name}");
        guide
            .iter()
            .find(|block| block.mark == mark)
            .unwrap()
            .text
            .clone()
    };
    let folder = scene.folder("before");
    let storage = folder.join("storage").display().to_string();
    let port = host::free_port();
    let config = before("config.yml")
        .replace("/var/lib/registry", &storage)
        .replace("https://registry-1.docker.io", &scene.open.url())
        .replace("5001", &port.to_string());
    let file = folder.join("config.yml");
    fs::write(&file, config).unwrap();
    let arguments = ["serve".as_ref(), file.as_os_str()];
    let mut registry = Daemon::start(
        "docker-registry",
        arguments,
        &[],
        &folder.join("registry.log"),
    );
    registry.until(|| host::answers(port, "/v2/"));
    let nginx = before("nginx.conf").replace("/var/cache/nginx", &folder.display().to_string());
    // Its name is not looked up without a network.
    let nginx = nginx.replace("https://registry.example.com", "https://127.0.0.1:1");
    let file = folder.join("nginx.conf");
    let pid = folder.join("pid").display().to_string();
    fs::write(
        &file,
        format!("pid {pid};\nerror_log stderr;\nevents {{}}\nhttp {{\n{nginx}}}\n"),
    )
    .unwrap();
    host::output(Command::new("nginx").args(["-t", "-c"]).arg(&file));
}
