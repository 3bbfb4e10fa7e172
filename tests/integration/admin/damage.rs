//! A data directory that somebody or something has damaged: pulls stay right, and `layby verify` tells exactly what it
//! found and did; on a running server, and on a directory at rest.

use std::fs;

use serde_json::json;

use super::*;

/// What `layby verify` should find.
struct Expected {
    kind: &'static str,
    place: String,
    digest: Option<String>,
    found: String,
    done: String,
}

const AGAIN: &str = "it is fetched again at its next use";

impl Expected {
    /// A blob that was moved aside.
    fn aside(kind: &'static str, blob: &Content, found: &str) -> Self {
        let digest = blob.digest();
        Self {
            kind,
            place: digest.to_string(),
            digest: Some(digest.to_string()),
            found: found.to_owned(),
            done: format!(
                "moved to <data>/damaged/sha256-{}; {AGAIN}",
                digest.encoded()
            ),
        }
    }

    /// A blob of the image that is not there.
    fn missing(blob: &Content) -> Self {
        Self {
            kind: "missing",
            place: "registry.test/org/app:latest".to_owned(),
            digest: Some(blob.digest().to_string()),
            found: "it was here once and is not any more".to_owned(),
            done: format!("nothing to be done; {AGAIN}"),
        }
    }

    fn foreign(place: &str) -> Self {
        Self {
            kind: "foreign",
            place: format!("<data>/{place}"),
            digest: None,
            found: "not put there by layby".to_owned(),
            done: "left alone; it is never served".to_owned(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "kind": self.kind,
            "place": self.place,
            "digest": self.digest,
            "found": self.found,
            "done": self.done,
        })
    }
}

impl Scene {
    /// The blob that is damaged.
    pub(super) fn victim(&self) -> &Content {
        &self.app.layers[1]
    }

    /// Verifies, and fails unless it tells this and nothing else.
    async fn verifies(&self, expected: &[Expected], status: i32) {
        let ran = self.run(&["verify", "--json"]).await.expect(status);
        let told: Value = serde_json::from_str(&ran.out).expect("JSON");
        let expected: Vec<Value> = expected.iter().map(Expected::json).collect();
        assert_eq!(told["findings"], json!(expected), "{told:#}");
    }

    /// Both images are had, whole.
    pub(super) async fn pulls(&self) {
        self.pull(APP, "latest", &self.app).await;
        self.pull(WEB, "v1", &self.web).await;
    }

    /// How often a blob was asked of the upstream.
    fn asked(&self, blob: &Content) -> usize {
        let path = crate::support::blob_path(APP, blob);
        let seen = self.fake.record().all();
        let of = seen.iter().filter(|seen| seen.path == path);
        of.filter(|seen| seen.method == "GET").count()
    }
}

/// Damages the directory, has that found, and pulls.
async fn heals(damage: impl Fn(&Scene), expected: impl Fn(&Scene) -> Expected, status: i32) {
    for live in EACH {
        let scene = scene(live).await;
        scene.fake.record().clear();
        damage(&scene);
        let expected = [expected(&scene)];
        scene.verifies(&expected, status).await;
        let scene = if live { scene } else { scene.serving().await };
        scene.pulls().await;
        assert_eq!(scene.asked(scene.victim()), 1, "live: {live}");
        scene.verifies(&[], 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte() {
    let flip = |scene: &Scene| {
        let path = scene.file(scene.victim());
        let mut bytes = fs::read(&path).expect("a blob");
        bytes[1000] ^= 1;
        fs::write(&path, bytes).expect("damage");
    };
    let found = "its 40960 bytes do not match its digest";
    let expected = |scene: &Scene| Expected::aside("damaged", scene.victim(), found);
    heals(flip, expected, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_file() {
    let cut = |scene: &Scene| {
        let file = fs::File::options()
            .write(true)
            .open(scene.file(scene.victim()));
        file.and_then(|file| file.set_len(100)).expect("damage");
    };
    let found = "it has 100 bytes of 40960";
    let expected = |scene: &Scene| Expected::aside("truncated", scene.victim(), found);
    heals(cut, expected, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_truncated_between_two_lives_is_not_served_even_before_it_is_verified() {
    let scene = scene(false).await;
    let path = scene.file(scene.victim());
    let file = fs::File::options().write(true).open(path);
    file.and_then(|file| file.set_len(100)).expect("damage");
    scene.fake.record().clear();
    let scene = scene.serving().await;
    scene.pulls().await;
    assert_eq!(scene.asked(scene.victim()), 1);
    scene.verifies(&[], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_file() {
    let empty = |scene: &Scene| fs::write(scene.file(scene.victim()), "").expect("damage");
    let expected = |scene: &Scene| Expected::aside("emptied", scene.victim(), "it has no bytes");
    heals(empty, expected, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_file() {
    let remove = |scene: &Scene| fs::remove_file(scene.file(scene.victim())).expect("damage");
    heals(remove, |scene| Expected::missing(scene.victim()), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_place_of_a_file() {
    let link = |scene: &Scene| {
        let path = scene.file(scene.victim());
        let elsewhere = scene.layby.data().with_file_name("elsewhere");
        fs::rename(&path, &elsewhere).expect("damage");
        std::os::unix::fs::symlink(&elsewhere, &path).expect("damage");
    };
    for live in EACH {
        let scene = scene(live).await;
        scene.fake.record().clear();
        link(&scene);
        let shard = scene.file(scene.victim());
        let shard = shard.strip_prefix(scene.layby.data()).expect("inside");
        let expected = [
            Expected::foreign(shard.to_str().expect("text")),
            Expected::missing(scene.victim()),
        ];
        scene.verifies(&expected, 0).await;
        let scene = if live { scene } else { scene.serving().await };
        scene.pulls().await;
        assert_eq!(scene.asked(scene.victim()), 1);
        scene.verifies(&[], 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_file() {
    for live in EACH {
        let scene = scene(live).await;
        let shard = scene.file(scene.victim());
        let shard = shard.parent().expect("a directory").to_owned();
        let name = shard.file_name().and_then(|name| name.to_str());
        let in_shard = format!("blobs/sha256/{}/notes", name.expect("text"));
        let places = ["notes.txt".to_owned(), "blobs/notes".to_owned(), in_shard];
        let data = scene.layby.data();
        for place in &places {
            fs::write(data.join(place), "mine").expect("a foreign file");
        }
        let expected: Vec<_> = places
            .iter()
            .map(|place| Expected::foreign(place))
            .collect();
        scene.verifies(&expected, 0).await;
        let scene = if live { scene } else { scene.serving().await };
        scene.fake.go_down().await;
        for (repository, tag, image) in [(APP, "latest", &scene.app), (WEB, "v1", &scene.web)] {
            let path = format!("/v2/{repository}/manifests/{tag}");
            scene.layby.get(&path).await.expect(200);
            for blob in image.blobs() {
                scene.layby.blob(repository, blob).await.expect(blob);
            }
        }
        for place in &places {
            let kept = fs::read_to_string(data.join(place)).expect("it is there");
            assert_eq!(kept, "mine");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_place_of_a_directory() {
    for live in EACH {
        let scene = scene(live).await;
        let victim = scene.victim().clone();
        let shard = scene
            .file(&victim)
            .parent()
            .expect("a directory")
            .to_owned();
        let in_shard = |blob: &&Content| scene.file(blob).starts_with(&shard);
        let blobs: Vec<&Content> = scene.app.blobs().filter(in_shard).collect();
        assert_eq!(blobs.len(), 1, "other images, please");
        let away = scene.layby.data().with_file_name("away");
        fs::rename(&shard, &away).expect("damage");
        fs::write(&shard, "a file").expect("damage");
        let place = shard.strip_prefix(scene.layby.data()).expect("inside");
        let expected = [
            Expected::foreign(place.to_str().expect("text")),
            Expected::missing(&victim),
        ];
        scene.verifies(&expected, 0).await;
        let scene = if live { scene } else { scene.serving().await };
        // It cannot be kept, and passes through.
        for _ in 0..2 {
            scene.layby.blob(APP, &victim).await.expect(&victim);
        }
        scene.pull(WEB, "v1", &scene.web).await;
        // With the file gone, it is kept again: by the first fetch that begins after.
        fs::remove_file(&shard).expect("mended");
        eventually("a fetch that is kept", || async {
            scene.layby.blob(APP, &victim).await.expect(&victim);
            let kept = scene.layby.committed();
            kept.contains(victim.digest()).then_some(())
        })
        .await;
        scene.pulls().await;
        scene.verifies(&[], 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrub_finds_a_flipped_byte_by_itself_and_the_next_pull_heals_it() {
    let mut scene = Scene::new().await;
    let path = scene.file(scene.victim());
    let mut bytes = fs::read(&path).expect("a blob");
    bytes[1000] ^= 1;
    fs::write(&path, &bytes).expect("damage");
    scene
        .layby
        .restart_with(|setup| setup.set("cache", r#"scrub_interval = "1s""#))
        .await;
    let name = format!("damaged/sha256-{}", scene.victim().digest().encoded());
    let aside = scene.layby.data().join(name);
    let moved = eventually("the scrub", || async { fs::read(&aside).ok() }).await;
    assert!(moved == bytes);
    // It has its new name before it loses the old one.
    eventually("the end of the old name", || async {
        let committed = scene.layby.committed();
        (!committed.contains(scene.victim().digest())).then_some(())
    })
    .await;
    let counted = eventually("the count", || async {
        let counted = scene.layby.metric("damaged_blobs_total", "").await;
        (counted > 0.0).then_some(counted)
    })
    .await;
    assert!((counted - 1.0).abs() < f64::EPSILON, "{counted}");
    scene.pulls().await;
    scene.verifies(&[], 0).await;
}
