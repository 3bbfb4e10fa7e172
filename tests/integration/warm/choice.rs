//! What of an image is brought: platforms, what refers to it, and how much that is.

use layby::oci::Digest;
use serde_json::json;

use super::*;
use crate::support::{OCI_INDEX, OCI_MANIFEST};

const ARTIFACT: &str = "application/vnd.example.signature";

/// Puts an index of these images into a repository, each for its platform.
fn push_index(fake: &Fake, repository: &str, tag: &str, images: &[(&Image, &str)]) -> Digest {
    let mut listed = Vec::new();
    for (image, platform) in images {
        let digest = image.push(
            fake,
            repository,
            platform.rsplit('/').next().expect("a name"),
        );
        let mut parts = platform.split('/');
        let mut described = json!({ "os": parts.next(), "architecture": parts.next() });
        if let Some(variant) = parts.next() {
            described["variant"] = variant.into();
        }
        listed.push(json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest.as_str(),
            "size": image.manifest.len(),
            "platform": described,
        }));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed });
    let digest = fake.put_manifest(repository, OCI_INDEX, index.to_string());
    fake.tag(repository, tag, &digest);
    digest
}

/// Puts something that refers to `subject` into a repository; its content, and its manifest.
fn push_referrer(fake: &Fake, subject: Option<&Digest>, seed: u64) -> (Content, Digest) {
    let content = layer(seed, 2);
    let config = Content::bytes("{}");
    fake.put_blob(APP, &content);
    fake.put_blob(APP, &config);
    let described = |content: &Content, media_type: &str| json!({ "mediaType": media_type, "digest": content.digest().as_str(), "size": content.len() });
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": ARTIFACT,
        "config": described(&config, "application/vnd.oci.empty.v1+json"),
        "layers": [described(&content, ARTIFACT)],
    });
    if let Some(subject) = subject {
        manifest["subject"] =
            json!({ "mediaType": OCI_INDEX, "digest": subject.as_str(), "size": 1 });
    }
    let digest = fake.put_manifest(APP, OCI_MANIFEST, manifest.to_string());
    (content, digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wanted_platforms_come_and_what_an_index_lacks_is_told() {
    let scene = Scene::new().await;
    let (amd, arm, old) = (image(1), image(2), image(3));
    let listed = [
        (&amd, "linux/amd64"),
        (&arm, "linux/arm64/v8"),
        (&old, "linux/arm/v6"),
    ];
    push_index(&scene.fake, APP, "v1", &listed);
    let is_here = |image: &Image| {
        let here = scene.layby.committed();
        image.blobs().all(|blob| here.contains(blob.digest()))
    };
    scene
        .warm(&["--platform", "linux/arm64", "org/app:v1"])
        .await
        .expect(0);
    assert_eq!(
        [is_here(&amd), is_here(&arm), is_here(&old)],
        [false, true, false]
    );
    let wanted = "linux/amd64,linux/s390x";
    let told = scene
        .warm(&["--platform", wanted, "org/app:v1"])
        .await
        .expect(1);
    let problem = &told.ended("org/app:v1")["problems"][0];
    assert_eq!(problem["part"], "linux/s390x");
    let message = problem["message"].as_str().expect("text");
    assert!(
        message.contains("linux/amd64, linux/arm64/v8, linux/arm/v6"),
        "{message}"
    );
    assert_eq!(
        [is_here(&amd), is_here(&old)],
        [true, false],
        "the rest came all the same"
    );
    scene
        .warm(&["--platform", "all", "org/app:v1"])
        .await
        .expect(0);
    assert!(is_here(&old));
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_come_along_and_are_listed_offline() {
    for has_api in [true, false] {
        let mut scene = Scene::new().await;
        if has_api {
            scene.fake.answer_referrers();
        }
        let index = push_index(&scene.fake, APP, "v1", &[(&image(1), "linux/amd64")]);
        let (sbom, sbom_digest) = push_referrer(&scene.fake, Some(&index), 501);
        let (signature, signed) = push_referrer(&scene.fake, Some(&sbom_digest), 502);
        let (cosign, cosign_digest) = push_referrer(&scene.fake, None, 503);
        let stem = index.as_str().replace(':', "-");
        scene.fake.tag(APP, &format!("{stem}.sig"), &cosign_digest);
        if !has_api {
            for (of, digest) in [(&index, &sbom_digest), (&sbom_digest, &signed)] {
                let listed = json!([{ "mediaType": OCI_MANIFEST, "digest": digest.as_str(), "size": 1, "artifactType": ARTIFACT }]);
                let list =
                    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed });
                let list = scene.fake.put_manifest(APP, OCI_INDEX, list.to_string());
                scene.fake.tag(APP, &of.as_str().replace(':', "-"), &list);
            }
        }
        let platform = ["--platform", "linux/amd64", "org/app:v1"];
        scene.warm(&platform).await.expect(0);
        assert!(!scene.layby.committed().contains(cosign.digest()));
        let told = scene
            .warm(&[&["--referrers"][..], &platform].concat())
            .await
            .expect(0);
        // Of a registry that keeps no list, the lists under the fallback tags count as well as cosign's.
        assert_eq!(told.ended("org/app:v1")["referrers"], 3);
        scene.fake.go_down().await;
        scene
            .layby
            .restart_with(|setup| setup.set("", "offline = true"))
            .await;
        for content in [&sbom, &signature, &cosign] {
            scene.layby.blob(APP, content).await.expect(content);
        }
        let tag = format!("/v2/{APP}/manifests/{stem}.sig");
        scene.layby.get(&tag).await.expect(200);
        let list = if has_api {
            scene
                .layby
                .get(&format!("/v2/{APP}/referrers/{index}"))
                .await
        } else {
            scene
                .layby
                .get(&format!("/v2/{APP}/manifests/{stem}"))
                .await
        };
        let list = list.expect(200).json();
        assert_eq!(
            list["manifests"][0]["digest"],
            sbom_digest.as_str(),
            "{list}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_more_than_an_image_may_have_is_refused_before_any_of_it_is_fetched() {
    let scene = Scene::new().await;
    let listed = |number: u32| {
        let digest = Digest::sha256(&number.to_be_bytes());
        json!({ "mediaType": OCI_MANIFEST, "digest": digest.as_str(), "size": 1 })
    };
    let listed: Vec<_> = (0..16_384).map(listed).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed });
    let digest = scene.fake.put_manifest(APP, OCI_INDEX, index.to_string());
    scene.fake.tag(APP, "v1", &digest);
    let told = scene
        .warm(&["--platform", "all", "--referrers", "org/app:v1"])
        .await
        .expect(1);
    let problems = told.ended("org/app:v1")["problems"].as_array();
    let problems = problems.expect("a list");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0]["reason"], "too_many");
    assert!(
        scene
            .fake
            .record()
            .of("GET", "/manifests/sha256:")
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_the_sizes_and_fetches_no_blob() {
    let scene = Scene::new().await;
    let shared = layer(1, 300);
    let one = Image::of_layers("one", vec![shared.clone(), layer(2, 20)]);
    let two = Image::of_layers("two", vec![shared.clone(), layer(3, 10)]);
    one.push(&scene.fake, APP, "one");
    two.push(&scene.fake, APP, "two");
    let told = scene
        .warm(&["--dry-run", "org/app:one", "org/app:two"])
        .await
        .expect(0);
    let record = scene.fake.record();
    assert!(record.of("GET", "/blobs/").is_empty() && record.of("HEAD", "/blobs/").is_empty());
    let report = told.report();
    assert_eq!(
        (&report["lacking"], &report["dry_run"]),
        (&2.into(), &true.into())
    );
    let sum = |images: &[&Image]| -> u64 {
        let blobs = images.iter().flat_map(|image| image.blobs());
        let bytes: u64 = blobs.map(Content::len).sum();
        bytes + images.iter().map(|image| image.manifest.len()).sum::<u64>()
    };
    assert_eq!(told.ended("org/app:one")["bytes"], sum(&[&one]));
    assert_eq!(
        report["bytes"],
        sum(&[&one, &two]) - shared.len(),
        "what they share counts once"
    );
    scene.warm(&["org/app:one"]).await.expect(0);
    let ran = scene
        .run(&["--dry-run", "org/app:one", "org/app:two"])
        .await
        .expect(0);
    assert!(ran.err.contains("org/app:one: here"), "{ran:#?}");
    assert!(
        ran.out
            .contains("2 images: 1 here, 1 to fetch, 0 failed; 10."),
        "{ran:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_stored_counts_as_failed_and_is_not_read() {
    for (limit, reason) in [
        (r#"max_blob_size = "1MiB""#, "too_large"),
        (r#"max_size = "1MiB""#, "no_room"),
    ] {
        let scene = Scene::with(|setup| setup.set("cache", limit)).await;
        let large = layer(7, 3000);
        Image::of_layers("large", vec![large.clone()]).push(&scene.fake, APP, "v1");
        let told = scene.warm(&["org/app:v1"]).await.expect(1);
        let problem = &told.ended("org/app:v1")["problems"][0];
        assert_eq!(problem["reason"], reason, "{problem}");
        assert_eq!(problem["part"], large.digest().as_str());
        assert_eq!(
            scene.fake.record().gets(large.digest()),
            1,
            "asked for once, for nobody"
        );
    }
}
