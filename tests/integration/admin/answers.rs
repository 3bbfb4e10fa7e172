use serde_json::json;

use super::*;

/// Prints the same, as a table and as JSON, with the server running and after it has stopped.
async fn same_answers(name: &str, arguments: &[&str]) {
    let mut scene = Scene::new().await;
    settled(&scene).await;
    let live = scene.json(arguments).await;
    snapshot(name, &scene.run(arguments).await.expect(0).out);
    scene.layby.stop().await;
    assert_eq!(scene.json(arguments).await, live);
    snapshot(name, &scene.run(arguments).await.expect(0).out);
}

/// Waits until all requests have been counted, which is when their connections know that all was sent.
async fn settled(scene: &Scene) {
    eventually("all requests counted", || async {
        let statistics = scene.json(&["stats"]).await;
        (statistics["total"]["requests"] == 8).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ls_lists_the_same_from_a_server_and_from_its_directory() {
    same_answers("ls", &["ls"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ls_can_be_narrowed() {
    same_answers("ls-narrowed", &["ls", "registry.test/org/w*"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn show_tells_the_same_from_a_server_and_from_its_directory() {
    same_answers("show", &["show", "org/app"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_tells_the_same_from_a_server_and_from_its_directory() {
    same_answers("stats", &["stats"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_cache_verifies_the_same_from_a_server_and_from_its_directory() {
    same_answers("verify", &["verify"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_listed_the_same_from_a_server_and_from_its_directory() {
    same_answers("pins", &["pin"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_removal_tells_the_same_from_a_server_and_from_its_directory() {
    same_answers("rm-dry", &["rm", "--dry-run", "registry.test/org/*"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_say_what_clients_got_and_what_that_cost() {
    let scene = Scene::new().await;
    settled(&scene).await;
    scene.pull(APP, "latest", &scene.app).await;
    let served = |image: &Image| -> u64 {
        image.blobs().map(Content::len).sum::<u64>() + image.manifest.len()
    };
    let (once, twice) = (served(&scene.app) + served(&scene.web), served(&scene.app));
    eventually("all bytes counted", || async {
        let statistics = scene.json(&["stats"]).await;
        let upstream = &statistics["upstreams"][0];
        (upstream["requests"] == 12 && upstream["served_bytes"] == json!(once + twice))
            .then_some(())
    })
    .await;
    let statistics = scene.json(&["stats"]).await;
    let upstream = &statistics["upstreams"][0];
    assert_eq!(upstream["upstream"], UPSTREAM);
    // The second image's common layer was here, but for the proof.
    assert_eq!(upstream["hits"], 5, "{statistics:#}");
    assert_eq!(upstream["hit_bytes"], json!(twice + common().len()));
    assert_eq!(upstream["upstream_bytes"], json!(once - common().len()));
    assert_eq!(upstream["saved_bytes"], json!(twice + common().len()));
    assert_eq!(
        statistics["total"]["served_bytes"],
        upstream["served_bytes"]
    );
}
