//! Naming is not owning: content is served under a repository only with proof that the repository has it.

use serde_json::json;

use crate::fake::{Content, Fake, Gate, Rule};
use crate::support::{
    Image, KIB, Layby, MIB, OCI_INDEX, OCI_MANIFEST, Request, Setup, Wire, blob_path, index_of,
};

const OWNER: &str = "private/app";
const OTHER: &str = "other/app";

/// A registry where `OWNER` has an image, cached by Layby, and `OTHER` exists and has nothing of it.
async fn owned() -> (Fake, Layby, Image) {
    let fake = Fake::start().await;
    let image = Image::new(50, &[300 * KIB, 5]);
    image.push(&fake, OWNER, "latest");
    Image::new(51, &[10]).push(&fake, OTHER, "latest");
    let layby = Layby::over(&fake).await;
    layby
        .get(&format!("/v2/{OWNER}/manifests/latest"))
        .await
        .expect(200);
    for blob in image.blobs() {
        layby.blob(OWNER, blob).await.expect(blob);
    }
    (fake, layby, image)
}

/// Fails unless nothing of `image` is had under `repository`, in any way of asking.
async fn assert_hidden(layby: &Layby, repository: &str, image: &Image) {
    let blobs = image.blobs().map(|blob| blob_path(repository, blob));
    let manifest = format!("/v2/{repository}/manifests/{}", image.manifest.digest());
    for path in blobs.chain([manifest]) {
        for request in [
            Request::get(&path),
            Request::head(&path),
            Request::get(&path).range("0-3"),
            Request::get(&path)
                .header("If-None-Match", &format!("\"{}\"", image.manifest.digest())),
        ] {
            let reply = request.send_to(layby.address()).await;
            assert_eq!(reply.status(), 404, "{request:?}\n{}", reply.head.raw);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_content_is_not_served_under_a_repository_that_lacks_it() {
    let (_fake, layby, image) = owned().await;
    assert_hidden(&layby, OTHER, &image).await;
    assert_hidden(&layby, "no/such", &image).await;
    let layer = &image.layers[0];
    layby.blob(OWNER, layer).await.expect(layer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_names_foreign_content_does_not_open_it() {
    let (fake, layby, image) = owned().await;
    // The very manifest of the owner, published under another repository without its blobs.
    let digest = fake.put_manifest(OTHER, OCI_MANIFEST, image.manifest.all());
    fake.tag(OTHER, "stolen", &digest);
    layby
        .get(&format!("/v2/{OTHER}/manifests/stolen"))
        .await
        .expect(200);
    for blob in image.blobs() {
        let reply = layby.get(&blob_path(OTHER, blob)).await;
        assert_eq!(reply.status(), 404, "{}", reply.head.raw);
        assert_eq!(layby.head(&blob_path(OTHER, blob)).await.status(), 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_or_a_subject_that_names_foreign_content_does_not_open_it() {
    let (fake, layby, image) = owned().await;
    fake.answer_referrers();
    let index = index_of(&[&image]);
    let digest = fake.put_manifest(OTHER, OCI_INDEX, index.all());
    fake.tag(OTHER, "index", &digest);
    let subject = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/x.signature",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": Content::bytes("{}").digest().as_str() },
        "layers": [],
        "subject": { "mediaType": OCI_MANIFEST, "digest": image.manifest.digest().as_str(), "size": image.manifest.len() },
    });
    let digest = fake.put_manifest(OTHER, OCI_MANIFEST, subject.to_string());
    fake.tag(OTHER, "subject", &digest);
    for tag in ["index", "subject"] {
        layby
            .get(&format!("/v2/{OTHER}/manifests/{tag}"))
            .await
            .expect(200);
    }
    let subject = image.manifest.digest();
    layby
        .get(&format!("/v2/{OTHER}/referrers/{subject}"))
        .await
        .expect(200);
    assert_hidden(&layby, OTHER, &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_under_way_for_one_repository_is_not_given_to_another_that_lacks_it() {
    let fake = Fake::start().await;
    let content = Content::random(52, 2 * MIB);
    fake.put_blob(OWNER, &content);
    fake.put_blob(OTHER, &Content::bytes("something else"));
    let gate = Gate::closed();
    fake.script(Rule::path(format!("{OWNER}/blobs/")).wait_at(MIB, &gate));
    let layby = Layby::over(&fake).await;

    let mut wire = Wire::connect(layby.address()).await;
    wire.send(&Request::get(blob_path(OWNER, &content))).await;
    let head = wire.head().await;
    gate.reached().await;
    for request in [
        Request::get(blob_path(OTHER, &content)),
        Request::get(blob_path(OTHER, &content)).range("0-9"),
        Request::head(blob_path(OTHER, &content)),
    ] {
        assert_eq!(request.send_to(layby.address()).await.status(), 404);
    }
    gate.open();
    wire.hash_rest(head).await.expect(&content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_has_the_blob_too_joins_for_one_head() {
    let fake = Fake::start().await;
    let content = Content::random(53, 2 * MIB);
    fake.put_blob(OWNER, &content);
    fake.put_blob(OTHER, &content);
    let layby = Layby::over(&fake).await;
    layby.blob(OWNER, &content).await.expect(&content);
    for _ in 0..3 {
        layby.blob(OTHER, &content).await.expect(&content);
    }
    let asked = |method| fake.record().of(method, &format!("{OTHER}/blobs/")).len();
    assert_eq!((asked("HEAD"), asked("GET")), (1, 0));
    assert_eq!(fake.record().gets(content.digest()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_head_is_refused_one_byte_is_the_proof() {
    let fake = Fake::start().await;
    let content = Content::random(54, 2 * MIB);
    fake.put_blob(OWNER, &content);
    fake.put_blob(OTHER, &content);
    fake.script(Rule::path("/blobs/").method("HEAD").error(403, "DENIED"));
    let layby = Layby::over(&fake).await;
    layby.blob(OWNER, &content).await.expect(&content);
    layby.blob(OTHER, &content).await.expect(&content);
    let proof = fake.record().of("GET", &format!("{OTHER}/blobs/"));
    assert_eq!(proof.len(), 1);
    assert_eq!(proof[0].header("range"), Some("bytes=0-0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_everything_instead_of_one_byte_is_a_proof_and_is_not_read() {
    let fake = Fake::start().await;
    fake.ignore_ranges();
    fake.script(
        Rule::path("/blobs/")
            .method("HEAD")
            .error(405, "UNSUPPORTED"),
    );
    let content = Content::random(56, 4 * MIB);
    fake.put_blob(OWNER, &content);
    fake.put_blob(OTHER, &content);
    let gate = Gate::closed();
    fake.script(Rule::path(format!("{OTHER}/blobs/")).wait_at(MIB, &gate));
    let layby = Layby::over(&fake).await;
    layby.blob(OWNER, &content).await.expect(&content);
    // The rest of this answer never comes.
    layby.blob(OTHER, &content).await.expect(&content);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_there_is_no_proof_and_with_a_proof_no_answer_is_needed() {
    let (fake, mut layby, image) = owned().await;
    let layer = &image.layers[0];
    fake.put_blob(OTHER, layer);
    fake.put_blob("third/app", layer);
    layby.blob(OTHER, layer).await.expect(layer);
    fake.go_down().await;
    for repository in [OWNER, OTHER] {
        layby.blob(repository, layer).await.expect(layer);
    }
    assert_eq!(
        layby.get(&blob_path("third/app", layer)).await.status(),
        503
    );
    layby
        .restart_with(|setup| setup.set("", "offline = true"))
        .await;
    for repository in [OWNER, OTHER] {
        layby.blob(repository, layer).await.expect(layer);
    }
    let reply = layby.get(&blob_path("third/app", layer)).await;
    assert_eq!(
        (reply.status(), reply.code().as_str()),
        (404, "BLOB_UNKNOWN")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_upstreams_content_is_not_served_under_another() {
    let (first, second) = (Fake::start().await, Fake::start().await);
    let image = Image::new(55, &[KIB]);
    image.push(&first, OWNER, "latest");
    second.put_blob(OWNER, &Content::bytes("something else"));
    let layby = Setup::over(&first)
        .upstream("second.test", &second)
        .start()
        .await;
    layby
        .get(&format!("/v2/{OWNER}/manifests/latest"))
        .await
        .expect(200);
    for blob in image.blobs() {
        layby.blob(OWNER, blob).await.expect(blob);
    }
    assert_hidden(&layby, &format!("second.test/{OWNER}"), &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_gains_the_blob_is_believed_after_the_negative_ttl() {
    let (fake, layby, image) = owned().await;
    let layer = &image.layers[0];
    assert_eq!(layby.get(&blob_path(OTHER, layer)).await.status(), 404);
    fake.put_blob(OTHER, layer);
    layby.clock().advance(std::time::Duration::from_secs(11));
    layby.blob(OTHER, layer).await.expect(layer);
}
