//! Lists of tags and of referrers, and the catalog.

use std::time::Duration;

use serde_json::json;

use crate::fake::{Content, Fake};
use crate::support::{Image, KIB, Layby, OCI_INDEX, OCI_MANIFEST, Setup, UPSTREAM};

const REPOSITORY: &str = "org/app";
const LATEST: &str = "/v2/org/app/manifests/latest";

/// A registry with a tagged image, and Layby, which believes a list for a minute.
async fn tagged() -> (Fake, Layby, Image) {
    let fake = Fake::start().await;
    let image = Image::new(77, &[KIB]);
    image.push(&fake, REPOSITORY, "latest");
    let layby = Setup::over(&fake)
        .of(UPSTREAM, r#"tag_ttl = "60s""#)
        .start()
        .await;
    (fake, layby, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_tags_are_cached_like_tags() {
    let (fake, layby, image) = tagged().await;
    let path = format!("/v2/{REPOSITORY}/tags/list");
    for _ in 0..2 {
        let list = layby.get(&path).await.expect(200).json();
        assert_eq!(list, json!({ "name": REPOSITORY, "tags": ["latest"] }));
    }
    assert_eq!(fake.record().of("GET", "/tags/list").len(), 1);
    fake.tag(REPOSITORY, "newer", image.manifest.digest());
    layby.clock().advance(Duration::from_secs(61));
    let list = layby.get(&path).await.expect(200).json();
    assert_eq!(list["tags"], json!(["latest", "newer"]));
    fake.go_down().await;
    layby.clock().advance(Duration::from_secs(61));
    let stale = layby.get(&path).await.expect(200);
    assert_eq!(stale.json()["tags"], json!(["latest", "newer"]));
    assert!(stale.header("warning").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_lists_are_made_of_what_is_cached() {
    let (fake, mut layby, _) = tagged().await;
    layby.get(LATEST).await.expect(200);
    fake.go_down().await;
    layby
        .restart_with(|setup| setup.set("", "offline = true"))
        .await;
    let list = layby
        .get(&format!("/v2/{REPOSITORY}/tags/list"))
        .await
        .expect(200)
        .json();
    assert_eq!(list["tags"], json!(["latest"]));
    let catalog = layby.get("/v2/_catalog").await.expect(200).json();
    let names = catalog["repositories"].as_array().expect("a list");
    assert!(
        names
            .iter()
            .any(|name| name.as_str().unwrap().contains(REPOSITORY)),
        "{catalog}"
    );
}

fn signature_of(image: &Image) -> Content {
    let body = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/x.signature",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": Content::bytes("{}").digest().as_str() },
        "layers": [],
        "subject": { "mediaType": OCI_MANIFEST, "digest": image.manifest.digest().as_str(), "size": image.manifest.len() },
    });
    Content::bytes(body.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_relayed_with_their_filter_and_their_404() {
    let (fake, layby, image) = tagged().await;
    let path = format!("/v2/{REPOSITORY}/referrers/{}", image.manifest.digest());
    let filtered = format!("{path}?artifactType=application%2Fx.signature");
    assert_eq!(layby.get(&path).await.status(), 404);

    fake.answer_referrers();
    let signature = signature_of(&image);
    fake.put_manifest(REPOSITORY, OCI_MANIFEST, signature.all());
    layby.clock().advance(Duration::from_secs(61));
    let reply = layby.get(&path).await.expect(200);
    assert_eq!(reply.header("content-type"), Some(OCI_INDEX));
    assert_eq!(
        reply.json()["manifests"][0]["digest"],
        signature.digest().as_str()
    );
    let reply = layby.get(&filtered).await.expect(200);
    assert_eq!(reply.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(
        reply.json()["manifests"][0]["digest"],
        signature.digest().as_str()
    );
    fake.go_down().await;
    assert_eq!(
        layby.get(&path).await.expect(200).json()["manifests"][0]["size"],
        signature.len()
    );
}

/// From manifests that were pulled, by their subject; the upstream was never asked for the list.
#[tokio::test(flavor = "multi_thread")]
async fn offline_referrers_are_found_among_what_is_cached() {
    let (fake, mut layby, image) = tagged().await;
    let signature = signature_of(&image);
    fake.put_manifest(REPOSITORY, OCI_MANIFEST, signature.all());
    let by_digest = format!("/v2/{REPOSITORY}/manifests/{}", signature.digest());
    layby.get(&by_digest).await.expect(200);
    let asked = fake.record().connections();
    layby
        .restart_with(|setup| setup.set("", "offline = true"))
        .await;
    let path = format!("/v2/{REPOSITORY}/referrers/{}", image.manifest.digest());
    for (query, found) in [
        ("", vec![signature.digest().as_str()]),
        (
            "?artifactType=application%2Fx.signature",
            vec![signature.digest().as_str()],
        ),
        ("?artifactType=application%2Fx.other", vec![]),
    ] {
        let reply = layby.get(&format!("{path}{query}")).await.expect(200);
        let list = reply.json();
        let listed = list["manifests"].as_array().expect("a list");
        let digests: Vec<_> = listed.iter().map(|entry| &entry["digest"]).collect();
        assert_eq!(digests, found, "{query}");
        let warning = reply.header("warning").expect("a warning");
        assert!(warning.contains("cached"), "{warning}");
    }
    assert_eq!(fake.record().connections(), asked);
}
