use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn rm_leaves_what_another_image_shares_pullable_with_the_upstream_down() {
    for live in EACH {
        let scene = scene(live).await;
        let removed = scene.run(&["rm", "org/app:latest"]).await.expect(0);
        snapshot("rm", &removed.out);
        let scene = if live { scene } else { scene.serving().await };
        scene.fake.go_down().await;
        scene.pull(WEB, "v1", &scene.web).await;
        let gone = format!("/v2/{APP}/manifests/latest");
        scene.layby.get(&gone).await.expect(503);
        for blob in [
            &scene.app.config,
            &scene.app.layers[0],
            &scene.app.layers[1],
        ] {
            // Also what is still there for the other repository: this one's proof is gone.
            let reply = scene.layby.get(&crate::support::blob_path(APP, blob)).await;
            assert_eq!(reply.status(), 503);
        }
        let names = scene.json(&["ls"]).await;
        assert_eq!(names["images"].as_array().map(Vec::len), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_is_fetched_again_when_it_is_asked_for() {
    let scene = scene(true).await;
    scene.run(&["rm", "registry.test/org/**"]).await.expect(0);
    assert!(scene.layby.committed().is_empty());
    scene.pull(APP, "latest", &scene.app).await;
    let shown = scene.json(&["show", "org/app"]).await;
    assert_eq!(shown["platforms"][0]["complete"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_kept_shown_and_taken_away() {
    for live in EACH {
        let scene = scene(live).await;
        let pinned = scene
            .run(&["pin", "org/app", "registry.test/org/w*:v*"])
            .await
            .expect(0);
        assert_eq!(
            pinned.out,
            "pinned registry.test/org/app:latest\npinned registry.test/org/w*:v*\n"
        );
        let again = scene.run(&["pin", "org/app"]).await.expect(0);
        assert_eq!(
            again.out,
            "was pinned before: registry.test/org/app:latest\n"
        );
        let list = scene.run(&["pin"]).await.expect(0);
        assert_eq!(
            list.out,
            "registry.test/org/app:latest\nregistry.test/org/w*:v*\n"
        );
        let images = scene.json(&["ls"]).await;
        for image in images["images"].as_array().expect("images") {
            assert_eq!(image["pinned"], true);
        }
        let refused = scene.run(&["rm", "org/app"]).await.expect(2);
        assert!(refused.err.contains("unpin"), "{refused:?}");
        let scene = scene.serving().await;
        let unpinned = scene.run(&["unpin", "org/app"]).await.expect(0);
        assert_eq!(unpinned.out, "unpinned registry.test/org/app:latest\n");
        assert_eq!(
            scene.run(&["pin"]).await.expect(0).out,
            "registry.test/org/w*:v*\n"
        );
        let unknown = scene.run(&["unpin", "org/app"]).await.expect(1);
        assert!(unknown.err.contains("is not a pin"), "{unknown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refreshed_tag_is_asked_about_at_its_next_use_once() {
    for live in EACH {
        let scene = scene(live).await;
        let refreshed = scene.run(&["refresh", "org/app"]).await.expect(0);
        assert_eq!(
            refreshed.out,
            "asked about at its next use: registry.test/org/app:latest\n1 tag\n"
        );
        let scene = if live { scene } else { scene.serving().await };
        let fresh = |value: &Value| value["freshness"] == "fresh";
        assert!(!fresh(&scene.json(&["show", "org/app"]).await));
        scene.fake.record().clear();
        for _ in 0..3 {
            scene
                .layby
                .get(&format!("/v2/{APP}/manifests/latest"))
                .await
                .expect(200);
            scene
                .layby
                .get(&format!("/v2/{WEB}/manifests/v1"))
                .await
                .expect(200);
        }
        let asked: Vec<_> = scene
            .fake
            .record()
            .all()
            .iter()
            .map(|seen| seen.path.clone())
            .collect();
        assert_eq!(
            asked,
            [format!("/v2/{APP}/manifests/latest")],
            "live: {live}"
        );
        eventually("the record", || async {
            fresh(&scene.json(&["show", "org/app"]).await).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refreshed_tag_is_served_as_before_with_the_upstream_down() {
    let scene = scene(true).await;
    scene.run(&["refresh", "registry.test/**"]).await.expect(0);
    scene.fake.go_down().await;
    scene.pull(APP, "latest", &scene.app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_moves_damage_aside_and_the_next_pull_is_right() {
    for live in EACH {
        let scene = scene(live).await;
        let [flipped, cut] = [&scene.app.layers[1], &scene.web.layers[1]];
        let mut bytes = std::fs::read(scene.file(flipped)).expect("a blob");
        bytes[1000] ^= 1;
        std::fs::write(scene.file(flipped), bytes).expect("damage");
        std::fs::write(scene.file(cut), b"too short").expect("damage");
        std::fs::write(scene.layby.data().join("notes.txt"), "mine").expect("a foreign file");
        let verified = scene.run(&["verify"]).await.expect(1);
        snapshot("verify-damage", &verified.out);
        let again = scene.json(&["verify"]).await;
        assert_eq!(again["report"]["missing"], 2);
        assert_eq!(again["report"]["sound"], 5);
        let scene = if live { scene } else { scene.serving().await };
        scene.pull(APP, "latest", &scene.app).await;
        scene.pull(WEB, "v1", &scene.web).await;
        scene.run(&["verify", "org/app"]).await.expect(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_tell_as_json_what_they_did() {
    const IMAGE: &str = "registry.test/org/app:latest";
    for live in EACH {
        let scene = scene(live).await;
        for (arguments, told) in [
            (
                &["pin", "org/app"][..],
                json!({ "pin": IMAGE, "changed": true }),
            ),
            (
                &["pin", "org/app"],
                json!({ "pin": IMAGE, "changed": false }),
            ),
            (&["pin"], json!({ "config": [], "command": [IMAGE] })),
            (
                &["unpin", "org/app"],
                json!({ "pin": IMAGE, "changed": true }),
            ),
            (&["refresh", "org/app"], json!({ "images": [IMAGE] })),
            (
                &["rm", "org/app"],
                json!({
                    "dry_run": false, "images": [IMAGE], "pinned": [],
                    "blobs": 3, "freed_bytes": 41_721, "kept_blobs": 1, "kept_bytes": 102_400,
                }),
            ),
        ] {
            assert_eq!(
                scene.json(arguments).await,
                told,
                "{arguments:?}, live: {live}"
            );
        }
    }
}
