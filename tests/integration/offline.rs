//! What is cached is served whatever becomes of the upstream, and what is not is said to be missing.

use std::time::Duration;

use crate::fake::{Fake, Rule};
use crate::support::{Image, KIB, Layby, MIB, Request, Setup, blob_path};

const REPOSITORY: &str = "org/app";

async fn pulled() -> (Fake, Layby, Image) {
    let fake = Fake::start().await;
    let image = Image::new(80, &[2 * MIB, 100 * KIB, 3]);
    image.push(&fake, REPOSITORY, "latest");
    let layby = Layby::over(&fake).await;
    pull(&layby, &image).await;
    (fake, layby, image)
}

/// Pulls an image as a client does; fails unless all of it is right.
async fn pull(layby: &Layby, image: &Image) {
    let head = layby
        .head(&format!("/v2/{REPOSITORY}/manifests/latest"))
        .await
        .expect(200);
    let digest = head
        .header("docker-content-digest")
        .expect("a digest")
        .to_owned();
    let manifest = layby
        .get(&format!("/v2/{REPOSITORY}/manifests/{digest}"))
        .await
        .expect(200);
    assert_eq!(manifest.body, image.manifest.all());
    for blob in image.blobs() {
        layby.blob(REPOSITORY, blob).await.expect(blob);
        let part = Request::get(blob_path(REPOSITORY, blob)).range("1-");
        assert_eq!(
            part.send_to(layby.address()).await.expect(206).body,
            blob.read(1..blob.len())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_again_with_the_upstream_down_after_any_time_and_a_restart() {
    let (fake, mut layby, image) = pulled().await;
    fake.go_down().await;
    pull(&layby, &image).await;
    layby.clock().advance(Duration::from_secs(365 * 24 * 3600));
    pull(&layby, &image).await;
    layby.restart().await;
    pull(&layby, &image).await;
    layby
        .restart_with(|setup| setup.set("", "offline = true"))
        .await;
    pull(&layby, &image).await;
}

/// What is written behind the answers is written before Layby ends.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_got_is_there_after_an_orderly_stop_at_once() {
    for round in 0..8 {
        let fake = Fake::start().await;
        let image = Image::new(800 + round, &[10, 300 * KIB]);
        image.push(&fake, REPOSITORY, "latest");
        let mut layby = Layby::over(&fake).await;
        pull_cold(&layby, &image).await;
        layby.stop().await;
        fake.go_down().await;
        layby
            .restart_with(|setup| setup.set("", "offline = true"))
            .await;
        pull_cold(&layby, &image).await;
    }
}

/// Tag and blobs, and nothing twice.
async fn pull_cold(layby: &Layby, image: &Image) {
    layby
        .get(&format!("/v2/{REPOSITORY}/manifests/latest"))
        .await
        .expect(200);
    for blob in image.blobs() {
        layby.blob(REPOSITORY, blob).await.expect(blob);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_image_costs_the_upstream_a_head_and_nothing_else() {
    let (fake, layby, image) = pulled().await;
    fake.record().clear();
    pull(&layby, &image).await;
    let all = fake.record().all();
    assert!(
        all.iter()
            .all(|seen| seen.method == "HEAD" && seen.path.ends_with("/latest")),
        "{all:#?}"
    );
    assert_eq!(all.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_the_upstream_deleted_or_denies_is_still_there() {
    let (fake, layby, image) = pulled().await;
    fake.remove(REPOSITORY);
    layby.clock().advance(Duration::from_secs(3600));
    pull(&layby, &image).await;
    fake.script(Rule::path("/v2/").method("*").error(403, "DENIED"));
    layby.clock().advance(Duration::from_secs(3600));
    pull(&layby, &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_a_miss_is_404_and_no_connection_is_made() {
    let fake = Fake::start().await;
    let image = Image::new(81, &[KIB]);
    image.push(&fake, REPOSITORY, "latest");
    let layby = Setup::over(&fake).set("", "offline = true").start().await;
    for (path, code) in [
        (
            format!("/v2/{REPOSITORY}/manifests/latest"),
            "MANIFEST_UNKNOWN",
        ),
        (
            format!("/v2/{REPOSITORY}/manifests/{}", image.manifest.digest()),
            "MANIFEST_UNKNOWN",
        ),
        (blob_path(REPOSITORY, &image.layers[0]), "BLOB_UNKNOWN"),
    ] {
        let reply = layby.get(&path).await.expect(404);
        assert_eq!(reply.code(), code);
        assert!(reply.text().contains("offline"), "{}", reply.text());
        assert_eq!(layby.head(&path).await.status(), 404);
    }
    assert_eq!(layby.get("/v2/").await.status(), 200);
    assert_eq!(fake.record().connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_asks_no_upstream() {
    let fake = Fake::start().await;
    let mut layby = Layby::over(&fake).await;
    layby.get("/v2/").await.expect(200);
    crate::support::get(layby.admin(), "/readyz")
        .await
        .expect(200);
    layby.restart().await;
    assert_eq!(fake.record().connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_under_way_finish_before_layby_stops() {
    let fake = Fake::start().await;
    let content = crate::fake::Content::random(82, 4 * MIB);
    fake.put_blob(REPOSITORY, &content);
    let mut layby = Layby::over(&fake).await;
    layby.blob(REPOSITORY, &content).await.expect(&content);
    let mut wire = crate::support::Wire::connect_narrow(layby.address()).await;
    wire.send(&Request::get(blob_path(REPOSITORY, &content)))
        .await;
    let head = wire.head().await;
    let (rest, ()) = tokio::join!(wire.hash_rest(head), layby.stop());
    rest.expect(&content);
}
