use std::time::Duration;

use super::*;

/// Every eviction is made once through a running server and once on its directory.
const EACH: [bool; 2] = [true, false];

async fn scene(live: bool) -> Scene {
    let mut scene = Scene::new().await;
    if !live {
        scene.layby.stop().await;
    }
    scene
}

impl Scene {
    fn has(&self, content: &Content) -> bool {
        self.layby.committed().contains(content.digest())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_leaves_a_pinned_image_whole_and_pullable_with_the_upstream_down() {
    for live in EACH {
        let mut scene = scene(live).await;
        scene.run(&["pin", "org/web:v1"]).await.expect(0);
        let before = scene.layby.committed().len();
        let would = scene.run(&["gc", "--to", "0", "--dry-run"]).await.expect(1);
        assert_eq!(scene.layby.committed().len(), before);
        let done = scene.run(&["gc", "--to", "0"]).await.expect(1);
        snapshot("gc", &format!("{}{}", would.out, done.out));
        assert!(!scene.has(&scene.app.layers[1]) && !scene.has(&scene.app.manifest));
        scene.layby.restart().await;
        scene.fake.go_down().await;
        scene.pull(WEB, "v1", &scene.web).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_no_longer_goes_while_the_server_runs() {
    let scene = scene(true).await;
    scene.run(&["pin", "org/web:v1"]).await.expect(0);
    scene.run(&["gc", "--to", "0"]).await.expect(1);
    assert!(scene.web.blobs().all(|blob| scene.has(blob)));
    scene.run(&["unpin", "org/web:v1"]).await.expect(0);
    eventually("everything gone", || async {
        let ran = scene.run(&["gc", "--to", "0"]).await;
        (ran.status == 0).then_some(())
    })
    .await;
    assert!(scene.layby.committed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_follows_its_tag_to_another_image() {
    let scene = scene(true).await;
    scene.run(&["pin", "org/web:v1"]).await.expect(0);
    let moved = Image::of_layers("moved", vec![common(), Content::random(73, 5 * KIB)]);
    moved.push(&scene.fake, WEB, "v1");
    scene.run(&["refresh", "org/web:v1"]).await.expect(0);
    scene.pull(WEB, "v1", &moved).await;
    scene.run(&["gc", "--to", "0"]).await.expect(1);
    assert!(moved.blobs().all(|blob| scene.has(blob)));
    assert!(scene.has(&moved.manifest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_gives_the_image_before_up_once_the_next_is_here_and_the_tag_is_asked_again() {
    let scene = scene(true).await;
    scene.run(&["pin", "org/web:v1"]).await.expect(0);
    let moved = Image::of_layers("moved", vec![common(), Content::random(73, 5 * KIB)]);
    moved.push(&scene.fake, WEB, "v1");
    scene.run(&["refresh", "org/web:v1"]).await.expect(0);
    let manifest = format!("/v2/{WEB}/manifests/v1");
    assert_eq!(
        scene.layby.get(&manifest).await.expect(200).body,
        moved.manifest.all()
    );
    let record = scene.layby.data().join("refs").join(UPSTREAM);
    let record = record.join(WEB).join("_tags/v1.json");
    let digest = moved.manifest.digest().to_string();
    eventually("the tag's record", || async {
        let record = std::fs::read_to_string(&record).unwrap_or_default();
        record.contains(&digest).then_some(())
    })
    .await;
    // Nothing of the next image is here yet but its manifest.
    scene.run(&["gc", "--to", "0"]).await.expect(1);
    assert!(scene.web.blobs().all(|blob| scene.has(blob)));
    scene.pull(WEB, "v1", &moved).await;
    scene.run(&["refresh", "org/web:v1"]).await.expect(0);
    scene.layby.get(&manifest).await.expect(200);
    eventually("the image before gone", || async {
        scene.run(&["gc", "--to", "0"]).await.expect(1);
        (!scene.has(&scene.web.layers[1])).then_some(())
    })
    .await;
    assert!(moved.blobs().all(|blob| scene.has(blob)));
}

#[tokio::test]
async fn proofs_of_what_was_evicted_long_ago_go_by_themselves_and_come_back_with_the_next_pull() {
    let scene = scene(true).await;
    let refs = scene.layby.data().join("refs").join(UPSTREAM);
    let proofs = |repository: &str, kind: &str| {
        let entries = std::fs::read_dir(refs.join(repository).join(kind));
        entries.map_or(0, Iterator::count)
    };
    for repository in [APP, WEB] {
        assert_eq!(proofs(repository, "_blobs"), 3);
        assert_eq!(proofs(repository, "_manifests"), 1);
    }
    scene.run(&["gc", "--to", "0"]).await.expect(0);
    // The sweep is due a while after the start.
    scene.layby.later(Duration::from_hours(91 * 24)).await;
    eventually("the sweep", || async {
        (scene.layby.metric("swept_proofs_total", "").await >= 6.0).then_some(())
    })
    .await;
    assert_eq!(proofs(APP, "_blobs") + proofs(WEB, "_blobs"), 0);
    scene.run(&["verify"]).await.expect(0);
    // Their tags name them.
    for repository in [APP, WEB] {
        assert_eq!(proofs(repository, "_manifests"), 1);
    }
    scene.pull(APP, "latest", &scene.app).await;
    scene.pull(WEB, "v1", &scene.web).await;
    assert_eq!(proofs(APP, "_blobs") + proofs(WEB, "_blobs"), 6);
    scene.fake.go_down().await;
    scene.pull(APP, "latest", &scene.app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_evicts_down_to_a_size_the_manifests_last() {
    for live in EACH {
        let scene = scene(live).await;
        let answer = scene.json(&["gc", "--to", "3KiB"]).await;
        assert_eq!(answer["reached"], true, "{answer}");
        assert_eq!(answer["dry_run"], false, "{answer}");
        assert!(answer["left_bytes"].as_u64() <= Some(3 * 1024), "{answer}");
        assert!(scene.has(&scene.app.manifest) && scene.has(&scene.web.manifest));
        assert!(scene.app.layers.iter().all(|layer| !scene.has(layer)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_image_needs_that_was_just_asked_for_goes_after_the_rest() {
    let scene = scene(true).await;
    scene.layby.clock().advance(Duration::from_mins(20));
    let manifest = format!("/v2/{WEB}/manifests/v1");
    scene.layby.get(&manifest).await.expect(200);
    let app_only = scene.app.layers[1].len();
    let all = scene.json(&["gc", "--dry-run", "--to", "0"]).await["freed_bytes"]
        .as_u64()
        .expect("bytes");
    let to = (all - app_only).to_string();
    scene.run(&["gc", "--to", &to]).await.expect(0);
    assert!(!scene.has(&scene.app.layers[1]));
    assert!(scene.web.blobs().all(|blob| scene.has(blob)));
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_without_a_limit_evicts_nothing_and_offline_is_refused() {
    for live in EACH {
        let mut scene = scene(live).await;
        let before = scene.layby.committed().len();
        let done = scene.run(&["gc"]).await.expect(0);
        assert!(done.out.starts_with("evicted 0 B in 0 blobs; "), "{done:?}");
        assert_eq!(scene.layby.committed().len(), before);
        scene.setup = scene.setup.clone().set("", "offline = true");
        if live {
            scene
                .layby
                .restart_with(|setup| setup.set("", "offline = true"))
                .await;
        }
        let refused = scene.run(&["gc", "--to", "0"]).await.expect(2);
        assert!(refused.err.contains("offline"), "{refused:?}");
        assert_eq!(scene.layby.committed().len(), before);
        let wrong = scene.run(&["gc", "--to", "much"]).await.expect(2);
        assert!(wrong.err.contains("500MiB"), "{wrong:?}");
    }
}
