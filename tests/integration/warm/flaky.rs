//! Many images from a registry that breaks off, stalls, refuses and limits, while clients pull the same.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;
use crate::fake::{Cut, Gate, Rule};
use crate::support::{beside, blob_path, done, download, eventually, soon};

/// Fifty images in ten repositories. All have the first layer, those of a repository the second.
struct Fleet {
    images: Vec<(String, String, Image)>,
}

impl Fleet {
    fn push(fake: &Fake) -> Self {
        let mut images = Vec::new();
        for number in 0..50 {
            let (repository, tag) = (
                format!("team/app{}", number / 5),
                format!("v{}", number % 5),
            );
            let layers = vec![
                layer(0, 900),
                layer(1 + number / 5, 60),
                layer(100 + number, 9),
            ];
            let image = Image::of_layers(&format!("fleet {number}"), layers);
            image.push(fake, &repository, &tag);
            images.push((repository, tag, image));
        }
        Self { images }
    }

    fn names(&self) -> Vec<String> {
        let name = |(repository, tag, _): &(String, String, Image)| format!("{repository}:{tag}");
        self.images.iter().map(name).collect()
    }

    fn blobs(&self) -> Vec<Content> {
        let mut blobs: Vec<_> = self
            .images
            .iter()
            .flat_map(|(_, _, i)| i.blobs())
            .cloned()
            .collect();
        blobs.sort_by_key(|blob| blob.digest().to_string());
        blobs.dedup_by_key(|blob| blob.digest().to_string());
        blobs
    }
}

fn break_everything(fake: &Fake) {
    fake.script(
        Rule::digest(layer(0, 900).digest())
            .cut_after(300 * KIB, Cut::Reset)
            .once(),
    );
    fake.script(
        Rule::digest(layer(0, 900).digest())
            .stall_within(1..200 * KIB)
            .once(),
    );
    fake.script(
        Rule::digest(layer(2, 60).digest())
            .error(503, "UNAVAILABLE")
            .times(2),
    );
    fake.script(
        Rule::digest(layer(107, 9).digest())
            .cut_after(KIB, Cut::Fin)
            .times(3),
    );
    fake.script(
        Rule::path("/team/app3/manifests/v2")
            .error(503, "UNAVAILABLE")
            .times(2),
    );
    let limit = Rule::path("/team/app4/manifests/v4").error(429, "TOOMANYREQUESTS");
    fake.script(limit.header("retry-after", "2").once());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_images_from_a_flaky_registry_are_brought_with_each_blob_fetched_once() {
    let scene = Scene::with(|setup| setup.set("limits", r#"stall_timeout = "1s""#)).await;
    let fleet = Arc::new(Fleet::push(&scene.fake));
    break_everything(&scene.fake);
    let (clients, address) = (Arc::clone(&fleet), scene.layby.address());
    let pulling = beside(async move {
        let mut pulls = JoinSet::new();
        for (repository, _, image) in clients.images.iter().step_by(7) {
            for blob in image.blobs().cloned().collect::<Vec<_>>() {
                let path = blob_path(repository, &blob);
                pulls.spawn(async move {
                    // As clients do, it asks again when it is told to wait.
                    let whole = eventually("a pull", || async {
                        let got = download(address, &path).await;
                        (got.head.status == 200).then_some(got)
                    });
                    whole.await.expect(&blob);
                });
            }
        }
        pulls.join_all().await.len()
    });
    let names = fleet.names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let told = soon("the run", scene.warm(&names)).await.expect(0);
    done(pulling).await;
    let report = told.report();
    assert_eq!(
        (&report["images"], &report["failed"]),
        (&50.into(), &0.into())
    );
    assert!(!told.of("retry").is_empty(), "{:#?}", told.events);
    let record = scene.fake.record();
    for blob in fleet.blobs() {
        let gets = record.of("GET", blob.digest().as_str());
        let content = gets.iter().filter(|seen| !seen.sent().is_empty());
        // One, and one more for each that broke off.
        let broken = record.broken(blob.digest());
        assert_eq!(
            content.count() as u64,
            1 + broken,
            "{}: {gets:#?}",
            blob.digest()
        );
    }
    scene.fake.go_down().await;
    for (repository, tag, image) in fleet.images.iter().step_by(3) {
        scene.is_whole(repository, tag, image).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_cut_short_is_completed_by_the_next_which_fetches_the_rest_only() {
    let scene = Scene::new().await;
    let fleet = Fleet::push(&scene.fake);
    let gate = Gate::closed();
    let base = layer(0, 900);
    scene
        .fake
        .script(Rule::digest(base.digest()).hold(&gate).once());
    let names = fleet.names();
    let names: Vec<&str> = names.iter().take(12).map(String::as_str).collect();
    let config = scene.config();
    let mut cut = tokio::process::Command::new(env!("CARGO_BIN_EXE_layby"));
    cut.args(["warm", "--config", config.to_str().expect("characters")])
        .args(&names);
    cut.kill_on_drop(true).stderr(std::process::Stdio::null());
    let mut cut = cut.spawn().expect("it runs");
    soon("the fetch", gate.reached()).await;
    soon("its end", cut.kill()).await.expect("it can be killed");
    gate.open();
    let told = scene.warm(&names).await.expect(0);
    assert_eq!(told.report()["failed"], 0);
    assert_eq!(
        scene.fake.record().gets(base.digest()),
        1,
        "it went on to its end"
    );
}
