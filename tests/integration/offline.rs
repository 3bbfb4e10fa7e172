//! What is cached is served whatever becomes of the upstream, and what is not is said to be missing.

use std::time::Duration;

use crate::fake::{Fake, Protection};
use crate::support::{Image, KIB, Layby, MIB, Program, Request, Setup, UPSTREAM, blob_path, get};

const REPOSITORY: &str = "org/app";

async fn pulled() -> (Fake, Layby, Image) {
    let fake = Fake::start().await;
    let image = Image::new(80, &[2 * MIB, 100 * KIB, 3]);
    image.push(&fake, REPOSITORY, "latest");
    let layby = Layby::over(&fake).await;
    pull(&layby, &image).await;
    (fake, layby, image)
}

async fn pull(layby: &Layby, image: &Image) {
    image.pull(layby.address(), REPOSITORY, "latest").await;
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

/// Every path of something that is not here, and the code of the answer.
fn misses(image: &Image) -> Vec<(String, &'static str)> {
    let below = |rest: &str| format!("/v2/{REPOSITORY}/{rest}");
    let manifest = image.manifest.digest();
    vec![
        (below("manifests/other"), "MANIFEST_UNKNOWN"),
        (below(&format!("manifests/{manifest}")), "MANIFEST_UNKNOWN"),
        (blob_path(REPOSITORY, &image.layers[0]), "BLOB_UNKNOWN"),
        ("/v2/org/none/tags/list".to_owned(), "NAME_UNKNOWN"),
        (below(&format!("referrers/{manifest}")), "MANIFEST_UNKNOWN"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_a_miss_is_404_and_no_connection_is_made() {
    let fake = Fake::start().await;
    let image = Image::new(81, &[KIB]);
    image.push(&fake, REPOSITORY, "other");
    let layby = Setup::over(&fake).set("", "offline = true").start().await;
    for (path, code) in misses(&image) {
        let reply = layby.get(&path).await.expect(404);
        assert_eq!(reply.code(), code, "{path}");
        assert!(reply.text().contains("offline"), "{}", reply.text());
        assert_eq!(layby.head(&path).await.status(), 404, "{path}");
    }
    let part = Request::get(blob_path(REPOSITORY, &image.layers[0])).range("-10");
    assert_eq!(part.send_to(layby.address()).await.status(), 404);
    assert_eq!(layby.get("/v2/").await.status(), 200);
    assert_eq!(fake.record().connections(), 0);
}

/// Also where the upstream is there, and wants a login that Layby has.
#[tokio::test(flavor = "multi_thread")]
async fn told_so_on_the_command_line_the_program_opens_no_connection_and_serves_what_it_has() {
    let fake = Fake::start().await;
    let image = Image::new(83, &[2 * MIB, 3]);
    image.push(&fake, REPOSITORY, "latest");
    fake.protect(Protection::Basic {
        login: "robot:hunter2",
    });
    let setup = Setup::over(&fake)
        .of(UPSTREAM, r#"username = "robot""#)
        .of(UPSTREAM, r#"password = "hunter2""#);
    let scratch = tempfile::tempdir().unwrap();
    let program = Program::start(&setup, scratch.path()).await;
    image.pull(program.address(), REPOSITORY, "latest").await;
    program.stop().await;
    let (before, other) = (fake.record().connections(), Image::new(84, &[5]));
    other.push(&fake, REPOSITORY, "other");

    let program = Program::start_with(&setup, scratch.path(), &["--offline"]).await;
    image.pull(program.address(), REPOSITORY, "latest").await;
    for (path, code) in misses(&other) {
        let reply = get(program.address(), &path).await.expect(404);
        assert_eq!(reply.code(), code, "{path}");
    }
    get(program.admin(), "/readyz").await.expect(200);
    let elsewhere = get(program.address(), "/v2/ghcr.io/org/app/manifests/1").await;
    assert!(elsewhere.expect(404).text().contains("offline"));
    program.stop().await;
    assert_eq!(fake.record().connections(), before);
}

/// What the policy says of an upstream that cannot be asked is not meant for one that may not be asked.
#[tokio::test(flavor = "multi_thread")]
async fn offline_a_tag_never_expires_whatever_the_policy() {
    let (fake, mut layby, image) = pulled().await;
    let before = fake.record().connections();
    layby
        .restart_with(|setup| {
            let setup = setup.set("", "offline = true");
            ["gone", "denied", "error"]
                .iter()
                .fold(setup, |setup, reason| {
                    setup.of(UPSTREAM, &format!(r#"stale_if_{reason} = "0s""#))
                })
        })
        .await;
    layby
        .clock()
        .advance(Duration::from_secs(20 * 365 * 24 * 3600));
    pull(&layby, &image).await;
    let list = format!("/v2/{REPOSITORY}/tags/list");
    let list = layby.get(&list).await.expect(200).json();
    assert_eq!(list["tags"], serde_json::json!(["latest"]));
    assert_eq!(fake.record().connections(), before);
}

/// Naming is not owning, and offline nobody can be asked who owns it.
#[tokio::test(flavor = "multi_thread")]
async fn offline_a_blob_of_one_repository_is_not_served_under_another() {
    let (fake, mut layby, image) = pulled().await;
    fake.put_blob("org/other", &image.layers[0]);
    layby.has_committed(REPOSITORY, image.blobs()).await;
    let before = fake.record().connections();
    layby
        .restart_with(|setup| setup.set("", "offline = true"))
        .await;
    let path = blob_path("org/other", &image.layers[0]);
    let reply = layby.get(&path).await.expect(404);
    assert!(reply.text().contains("offline"), "{}", reply.text());
    assert_eq!(layby.head(&path).await.status(), 404);
    assert_eq!(fake.record().connections(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_asks_no_upstream() {
    let fake = Fake::start().await;
    let mut layby = Layby::over(&fake).await;
    layby.get("/v2/").await.expect(200);
    get(layby.admin(), "/readyz").await.expect(200);
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
