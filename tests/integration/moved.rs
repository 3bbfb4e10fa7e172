//! A tag that moved upstream just before the upstream died: the newest image that can be pulled whole is served.

use std::time::Duration;

use crate::fake::{Content, Fake, Gate, Rule};
use crate::support::{Image, KIB, Layby, OCI_INDEX, Request, Setup, Wire, blob_path, index_of};

const REPOSITORY: &str = "org/app";
const LATEST: &str = "/v2/org/app/manifests/latest";

/// A registry and Layby, which holds tags for no time.
async fn started() -> (Fake, Layby) {
    let fake = Fake::start().await;
    let layby = Setup::over(&fake)
        .set("limits", r#"revalidate_timeout = "500ms""#)
        .start()
        .await;
    (fake, layby)
}

/// Points the tag at a new image, and pulls so much of it: its manifest, and its first blobs.
async fn push_and_pull_some(fake: &Fake, layby: &Layby, image: &Image, blobs: usize) {
    image.push(fake, REPOSITORY, "latest");
    wait_out_failures(layby);
    let manifest = layby.get(LATEST).await.expect(200);
    assert_eq!(manifest.body, image.manifest.all());
    let some: Vec<_> = image.blobs().take(blobs).collect();
    for blob in &some {
        layby.blob(REPOSITORY, blob).await.expect(blob);
    }
    layby.has_committed(REPOSITORY, some).await;
}

/// Pushes an image of which the upstream then gives away no more than its digest: its `HEAD` is answered, its `GET` not.
async fn show_only_the_digest(fake: &Fake, layby: &Layby, image: &Image) {
    let digest = image.push(fake, REPOSITORY, "latest");
    fake.script(Rule::digest(&digest).error(503, "UNAVAILABLE"));
    fake.record().clear();
    wait_out_failures(layby);
    layby.get(LATEST).await.expect(200);
    let asked = |method| fake.record().of(method, "/manifests/");
    assert_eq!(asked("HEAD").len(), 1);
    assert!(asked("GET").iter().all(|seen| seen.status() == 503));
    assert!(!asked("GET").is_empty());
}

/// Past `negative_ttl`, so that the upstream is asked again.
fn wait_out_failures(layby: &Layby) {
    layby.clock().advance(Duration::from_secs(11));
}

/// The upstream dies, and `image` is all that can be had by the tag: at once, later, after a restart and offline.
async fn assert_left_with(fake: &Fake, layby: &mut Layby, image: &Image) {
    fake.go_down().await;
    assert_served(layby, image).await;
    wait_out_failures(layby);
    assert_served(layby, image).await;
    layby.restart().await;
    assert_served(layby, image).await;
    layby
        .restart_with(|setup| setup.set("", "offline = true"))
        .await;
    assert_served(layby, image).await;
}

async fn assert_served(layby: &Layby, image: &Image) {
    let reply = layby.get(LATEST).await.expect(200);
    assert_eq!(reply.body, image.manifest.all());
    assert!(reply.header("warning").is_some());
    image.pull(layby.address(), REPOSITORY, "latest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_new_image_only_the_digest_was_seen() {
    let (fake, mut layby) = started().await;
    let whole = Image::new(310, &[KIB, 3]);
    push_and_pull_some(&fake, &layby, &whole, 3).await;
    show_only_the_digest(&fake, &layby, &Image::new(311, &[KIB])).await;
    assert_left_with(&fake, &mut layby, &whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_new_image_the_upstream_died_in_the_middle_of_the_manifest() {
    let (fake, mut layby) = started().await;
    let whole = Image::new(312, &[KIB, 3]);
    push_and_pull_some(&fake, &layby, &whole, 3).await;
    let newer = Image::new(313, &[KIB]);
    let digest = newer.push(&fake, REPOSITORY, "latest");
    let never = Gate::closed();
    fake.script(Rule::digest(&digest).wait_at(20, &never));
    let reply = layby.get(LATEST).await.expect(200);
    assert_eq!(reply.body, whole.manifest.all());
    never.reached().await;
    assert_left_with(&fake, &mut layby, &whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_new_image_the_manifest_was_fetched_and_no_blob() {
    let (fake, mut layby) = started().await;
    let whole = Image::new(314, &[KIB, 3]);
    push_and_pull_some(&fake, &layby, &whole, 3).await;
    push_and_pull_some(&fake, &layby, &Image::new(315, &[KIB]), 0).await;
    assert_left_with(&fake, &mut layby, &whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_new_image_all_but_the_last_blob_was_fetched() {
    let (fake, mut layby) = started().await;
    let whole = Image::new(316, &[KIB, 3]);
    push_and_pull_some(&fake, &layby, &whole, 3).await;
    push_and_pull_some(&fake, &layby, &Image::new(317, &[KIB, 5, 6]), 3).await;
    assert_left_with(&fake, &mut layby, &whole).await;
}

/// Part of a blob is no blob.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_new_image_the_upstream_died_in_the_middle_of_the_last_blob() {
    let (fake, mut layby) = started().await;
    let whole = Image::new(318, &[KIB, 3]);
    push_and_pull_some(&fake, &layby, &whole, 3).await;
    let newer = Image::new(319, &[300 * KIB]);
    push_and_pull_some(&fake, &layby, &newer, 1).await;
    let never = Gate::closed();
    fake.script(Rule::digest(newer.layers[0].digest()).wait_at(200 * KIB, &never));
    let mut wire = Wire::connect(layby.address()).await;
    let path = blob_path(REPOSITORY, &newer.layers[0]);
    wire.send(&Request::get(path)).await;
    assert_eq!(wire.head().await.status, 200);
    wire.exactly(100 * KIB).await;
    never.reached().await;
    drop(wire);
    assert_left_with(&fake, &mut layby, &whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tag_moved_twice_and_the_first_image_alone_is_whole() {
    let (fake, mut layby) = started().await;
    let whole = Image::new(320, &[KIB, 3]);
    push_and_pull_some(&fake, &layby, &whole, 3).await;
    push_and_pull_some(&fake, &layby, &Image::new(321, &[KIB, 4]), 1).await;
    show_only_the_digest(&fake, &layby, &Image::new(322, &[KIB])).await;
    assert_left_with(&fake, &mut layby, &whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tag_moved_twice_and_the_second_image_is_whole_too() {
    let (fake, mut layby) = started().await;
    push_and_pull_some(&fake, &layby, &Image::new(323, &[KIB, 3]), 3).await;
    let second = Image::new(324, &[KIB, 4]);
    push_and_pull_some(&fake, &layby, &second, 3).await;
    push_and_pull_some(&fake, &layby, &Image::new(325, &[KIB, 5]), 2).await;
    assert_left_with(&fake, &mut layby, &second).await;
}

/// The index says nothing of what is here; its images do.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_index_without_any_of_its_images_is_not_whole() {
    let (fake, mut layby) = started().await;
    let whole = Image::new(326, &[KIB, 3]);
    push_and_pull_some(&fake, &layby, &whole, 3).await;
    let newer = Image::new(327, &[KIB]);
    newer.push(&fake, REPOSITORY, "inner");
    let index: Content = index_of(&[&newer]);
    let digest = fake.put_manifest(REPOSITORY, OCI_INDEX, index.all());
    fake.tag(REPOSITORY, "latest", &digest);
    assert_eq!(layby.get(LATEST).await.expect(200).body, index.all());
    let inner = format!("/v2/{REPOSITORY}/manifests/{}", newer.manifest.digest());
    layby.get(&inner).await.expect(200);
    assert_left_with(&fake, &mut layby, &whole).await;
}

/// And when it is back, nothing of that is left over.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_back_gives_the_new_image_at_once() {
    let (fake, layby) = started().await;
    let whole = Image::new(328, &[KIB, 3]);
    push_and_pull_some(&fake, &layby, &whole, 3).await;
    let newer = Image::new(329, &[KIB]);
    show_only_the_digest(&fake, &layby, &newer).await;
    fake.go_down().await;
    assert_served(&layby, &whole).await;
    fake.mend();
    fake.come_back().await;
    wait_out_failures(&layby);
    newer.pull(layby.address(), REPOSITORY, "latest").await;
    let reply = layby.get(LATEST).await.expect(200);
    assert_eq!(reply.header("warning"), None);
}
