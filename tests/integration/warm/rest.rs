//! Into a running server and into a directory at rest: what is told, and what is here afterwards.

use super::*;
use crate::fake::{Gate, Rule};

/// Everything is done once through a running server and once on its directory.
const EACH: [bool; 2] = [true, false];

async fn scene(live: bool) -> Scene {
    let mut scene = Scene::new().await;
    image(1).push(&scene.fake, APP, "v1");
    if !live {
        scene.layby.stop().await;
    }
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_warmed_is_served_when_the_registry_is_gone() {
    for live in EACH {
        let mut scene = scene(live).await;
        let told = scene.warm(&["org/app:v1"]).await.expect(0);
        let (report, total) = (told.report(), 30 * KIB);
        assert_eq!(
            (&report["images"], &report["fetched"]),
            (&1.into(), &1.into())
        );
        assert!(report["fetched_bytes"].as_u64().expect("a number") > total);
        assert_eq!(report["here_bytes"], 0);
        assert_eq!(told.ended("org/app:v1")["outcome"], "fetched");
        scene.fake.go_down().await;
        scene
            .layby
            .restart_with(|setup| setup.set("", "offline = true"))
            .await;
        scene.is_whole(APP, "v1", &image(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_is_not_fetched_again_and_the_registry_is_asked_where_the_tag_points() {
    for live in EACH {
        let scene = scene(live).await;
        scene.warm(&["org/app:v1"]).await.expect(0);
        scene.fake.record().clear();
        // The same by another name, and twice.
        let again = ["org/app:v1", "registry.test/org/app:v1", "org/app:v1"];
        let told = scene.warm(&again).await.expect(0);
        let report = told.report();
        assert_eq!((&report["images"], &report["here"]), (&1.into(), &1.into()));
        assert_eq!(report["fetched_bytes"], 0);
        let asked = scene.fake.record().all();
        let asked: Vec<_> = asked.iter().map(|seen| &seen.method).collect();
        assert_eq!(asked, ["HEAD"], "however fresh the tag is");
        // It has moved on.
        image(2).push(&scene.fake, APP, "v1");
        let told = scene.warm(&["org/app:v1"]).await.expect(0);
        assert_eq!(told.ended("org/app:v1")["outcome"], "fetched");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_told_with_its_reason_and_the_rest_is_brought() {
    for live in EACH {
        let scene = scene(live).await;
        let none = [
            "org/app:none",
            "org/app:v1",
            "elsewhere.example/org/app",
            "a b",
        ];
        let told = scene.warm(&none).await.expect(1);
        assert_eq!(
            (&told.report()["fetched"], &told.report()["failed"]),
            (&1.into(), &3.into())
        );
        let reason = |image: &str| &told.ended(image)["problems"][0]["reason"];
        assert_eq!(reason("org/app:none"), "not_found");
        assert_eq!(reason("elsewhere.example/org/app"), "name");
        assert_eq!(reason("a b"), "name");
        let ran = scene.run(&["org/app:none", "org/app:v1"]).await.expect(1);
        assert!(ran.out.contains("org/app:none:\n  none: "), "{ran:#?}");
        assert!(
            ran.out
                .contains("2 images: 0 fetched, 1 here before, 1 failed"),
            "{ran:#?}"
        );
        assert!(ran.err.contains("org/app:v1: here"), "{ran:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_there_yet_is_made() {
    let mut scene = scene(false).await;
    scene.layby.stop().await;
    std::fs::remove_dir_all(scene.layby.data()).expect("it can be removed");
    scene.warm(&["org/app:v1"]).await.expect(0);
    scene.layby.restart().await;
    scene.is_whole(APP, "v1", &image(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_nothing_can_be_warmed_and_it_says_so() {
    let mut scene = scene(true).await;
    scene.setup = scene.setup.set("", "offline = true");
    scene
        .layby
        .restart_with(|setup| setup.set("", "offline = true"))
        .await;
    for _ in EACH {
        let ran = scene.run(&["org/app:v1"]).await.expect(2);
        assert!(ran.err.contains("offline is set"), "{ran:#?}");
        scene.layby.stop().await;
    }
    assert!(scene.fake.record().all().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_again_before_the_end_is_told() {
    let scene = Scene::new().await;
    let (first, second) = (image(1), image(2));
    first.push(&scene.fake, APP, "v1");
    second.push(&scene.fake, APP, "v2");
    let gate = Gate::closed();
    let held = Rule::digest(second.layers[0].digest()).hold(&gate);
    scene.fake.script(held);
    let one_by_one = ["--jobs", "1", "org/app:v1", "org/app:v2"];
    let removing = async {
        gate.reached().await;
        let digest = first.layers[0].digest().encoded();
        let blobs = scene.layby.data().join("blobs/sha256").join(&digest[..2]);
        std::fs::remove_file(blobs.join(digest)).expect("it was here");
        gate.open();
    };
    let (told, ()) = tokio::join!(scene.warm(&one_by_one), removing);
    let told = told.expect(1);
    let lost = told.of("lost");
    assert_eq!(lost.len(), 1, "{told:#?}");
    assert_eq!(lost[0]["image"], "org/app:v1");
    assert_eq!(told.report()["failed"], 1);
}
