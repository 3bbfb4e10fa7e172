//! dockerd and containerd, whatever becomes of the upstream: what is cached is pulled, and what is not is the right error.

use std::fs;

use super::containerd::{self, Containerd};
use super::detour::{Detour, Trouble};
use super::docker::{self, Dockerd};
use super::host;
use super::images::Image;
use super::layby::Request;
use super::scene::{Scene, stock};
use super::story::{self, At, Way};

const UPSTREAM: &str = "docker.io";

/// A scene with a detour between Layby and its upstream, and two clients that know nothing of it.
struct Stage {
    dockerd: docker::Pull<'static>,
    containerd: containerd::Pull<'static>,
    detour: Detour,
    scene: Scene,
}

impl Stage {
    fn set() -> Self {
        let mut scene = Scene::start();
        let detour = Detour::to(scene.open.port());
        let url = scene.open.url();
        // Only `header_timeout` ends what hangs, before the patience of a test does.
        scene.layby.edit("[log]", LIMITS);
        scene.layby.edit(&url, &detour.url());
        scene.layby.restart();

        let image = &stock().small;
        let layby = format!("http://127.0.0.1:{}", scene.layby.port());
        let daemon_json = scene.folder("docker").join("daemon.json");
        let mirrors = serde_json::json!({ "registry-mirrors": [layby] });
        fs::write(&daemon_json, mirrors.to_string()).unwrap();
        let dockerd = Dockerd::start(&scene, &daemon_json);
        let hosts = scene.folder("hosts");
        containerd::write_hosts(&hosts, UPSTREAM, &layby, "");
        Self {
            dockerd: docker::Pull { dockerd, image },
            containerd: containerd::Pull {
                containerd: Containerd::start(&scene),
                hosts,
                at: At {
                    upstream: UPSTREAM,
                    image,
                },
                all_platforms: false,
            },
            detour,
            scene,
        }
    }

    /// Both clients pull the image, of which they have nothing; from Layby alone.
    fn pull(&mut self, image: &'static Image) -> Vec<Request> {
        let mark = self.scene.layby.mark();
        self.dockerd.image = image;
        self.dockerd.pull();
        self.dockerd.forget();
        self.containerd.at.image = image;
        self.containerd.pull();
        self.containerd.forget();
        assert_eq!(self.scene.trap.caught(), [""; 0], "went past Layby");
        let requests = self.scene.layby.requests(mark);
        for request in &requests {
            assert!(request.is_whole(), "{request:?}");
        }
        requests
    }

    /// The status and the body of Layby's answer to a `GET`.
    fn ask(&self, repository: &str, rest: &str) -> (u16, String) {
        let path = format!("/v2/{repository}/{rest}");
        host::answer(self.scene.layby.port(), &path).expect("an answer")
    }

    /// Asks for a manifest and a blob that nobody has asked for before.
    fn miss(&self, name: &str) -> [(u16, String); 2] {
        let repository = &stock().small.repository;
        let blob = super::images::digest(name.as_bytes());
        [
            self.ask(repository, &format!("manifests/{name}")),
            self.ask(repository, &format!("blobs/{blob}")),
        ]
    }
}

const LIMITS: &str = r#"
    [limits]
    header_timeout = "3s"
    revalidate_timeout = "300ms"
    connect_timeout = "10m"
    stall_timeout = "10m"

    [tags]
    negative_ttl = "500ms"

    [log]"#;

/// Status and code for what is not cached.
fn error(trouble: Trouble) -> (u16, &'static str) {
    match trouble {
        Trouble::Answers(401 | 403) => (403, "DENIED"),
        Trouble::PullLimit | Trouble::AbuseLimit => (429, "TOOMANYREQUESTS"),
        _ => (503, "UNAVAILABLE"),
    }
}

#[track_caller]
fn assert_error(answer: &(u16, String), trouble: Trouble) {
    let (status, code) = error(trouble);
    assert_eq!(answer.0, status, "{trouble:?}: {}", answer.1);
    assert!(answer.1.contains(code), "{trouble:?}: {}", answer.1);
}

#[test]
fn with_the_upstream_in_any_trouble_what_is_cached_is_pulled_and_the_rest_is_the_right_error() {
    if !host::has(&["dockerd", "docker", "containerd", "ctr"]) {
        return;
    }
    let mut stage = Stage::set();
    let image = &stock().small;
    stage.pull(image);
    for (number, trouble) in [
        Trouble::Killed,
        Trouble::Hanging,
        Trouble::Answers(401),
        Trouble::Answers(403),
        Trouble::Answers(500),
        Trouble::Answers(503),
        Trouble::AbuseLimit,
    ]
    .into_iter()
    .enumerate()
    {
        stage.detour.set(trouble);
        story::wait_until_stale(&stage.scene, stage.containerd.at);
        stage.pull(image);
        for answer in stage.miss(&format!("trouble-{number}")) {
            assert_error(&answer, trouble);
        }
        stage.detour.set(Trouble::None);
        // Whatever Layby holds against the upstream has its time.
        host::eventually("the upstream's own answer", || {
            let [manifest, blob] = stage.miss(&format!("after-{number}"));
            (manifest.0 == 404 && blob.0 == 404).then_some(())
        });
    }
    resolving_to_nothing(&mut stage);
    offline(&mut stage);
}

fn resolving_to_nothing(stage: &mut Stage) {
    let url = stage.detour.url();
    let nowhere = "http://registry.invalid";
    stage.scene.layby.edit(&url, nowhere);
    stage.scene.layby.restart();
    story::wait_until_stale(&stage.scene, stage.containerd.at);
    stage.pull(&stock().small);
    for answer in stage.miss("nowhere") {
        assert_error(&answer, Trouble::Killed);
    }
    stage.scene.layby.edit(nowhere, &url);
}

/// With an upstream that is in the best of health.
fn offline(stage: &mut Stage) {
    let before = stage.detour.connections();
    stage.scene.layby.edit("[admin]", "offline = true\n[admin]");
    stage.scene.layby.restart();
    stage.pull(&stock().small);
    story::wait_until_stale(&stage.scene, stage.containerd.at);
    stage.pull(&stock().small);
    for (status, body) in stage.miss("offline") {
        assert_eq!(status, 404, "{body}");
        assert!(body.contains("offline"), "{body}");
    }
    assert_eq!(stage.detour.connections(), before);
}

#[test]
fn while_manifests_are_held_for_a_pull_limit_blobs_flow() {
    if !host::has(&["dockerd", "docker", "containerd", "ctr"]) {
        return;
    }
    let mut stage = Stage::set();
    let (image, own) = (&stock().app, stock().app.own());
    for reference in [image.tag, own.manifest.as_str()] {
        let (status, body) = stage.ask(&image.repository, &format!("manifests/{reference}"));
        assert_eq!(status, 200, "{body}");
    }
    stage.detour.set(Trouble::PullLimit);
    for number in 0..3 {
        let [manifest, blob] = stage.miss(&format!("limited-{number}"));
        assert_error(&manifest, Trouble::PullLimit);
        assert_eq!(blob.0, 404, "{}", blob.1);
    }
    // All its blobs are cold.
    let requests = stage.pull(image);
    for blob in own.blobs() {
        let outcomes: Vec<_> = requests
            .iter()
            .filter(|request| request.reference() == blob)
            .map(Request::cache)
            .collect();
        assert_eq!(outcomes.first(), Some(&"miss"), "{blob}: {outcomes:?}");
    }
    for answer in &stage.miss("limited-still")[..1] {
        assert_error(answer, Trouble::PullLimit);
    }
}
