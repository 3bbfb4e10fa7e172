//! Tags, lists and referrers: fresh, revalidated, stale, absent.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::fake::{Fake, Gate, Rule};
use crate::support::{
    Image, KIB, Layby, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST, Reply, Setup, UPSTREAM, eventually,
    get, index_of,
};

const REPOSITORY: &str = "org/app";
const LATEST: &str = "/v2/org/app/manifests/latest";

/// A registry with a tagged image, and Layby, which believes a tag for a minute.
async fn tagged() -> (Fake, Layby, Image) {
    let fake = Fake::start().await;
    let image = Image::new(70, &[KIB]);
    image.push(&fake, REPOSITORY, "latest");
    let layby = Setup::over(&fake)
        .of(UPSTREAM, r#"tag_ttl = "60s""#)
        .start()
        .await;
    (fake, layby, image)
}

/// `HEAD`s and `GET`s of manifests that the upstream has seen.
fn asked(fake: &Fake) -> (usize, usize) {
    let count = |method| fake.record().of(method, "/manifests/").len();
    (count("HEAD"), count("GET"))
}

#[track_caller]
fn assert_stale(reply: &Reply, image: &Image) {
    assert_eq!(reply.status(), 200, "{}", reply.text());
    assert_eq!(reply.body, image.manifest.all());
    let warning = reply.header("warning").expect("a warning");
    assert!(
        warning.starts_with("299 - \"") && warning.ends_with('"'),
        "{warning}"
    );
    let cache = reply.header("cache-status").expect("a Cache-Status");
    assert!(cache.contains("fwd=stale"), "{cache}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_tag_is_answered_without_asking_and_an_old_one_for_a_head() {
    let (fake, layby, image) = tagged().await;
    for _ in 0..3 {
        assert_eq!(
            layby.get(LATEST).await.expect(200).body,
            image.manifest.all()
        );
        layby.head(LATEST).await.expect(200);
    }
    let (_, gets) = asked(&fake);
    assert_eq!(gets, 1);
    fake.record().clear();
    layby.clock().advance(Duration::from_secs(61));
    assert_eq!(
        layby.get(LATEST).await.expect(200).body,
        image.manifest.all()
    );
    layby.get(LATEST).await.expect(200);
    assert_eq!(asked(&fake), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_upstream_is_asked_by_head_at_every_use() {
    let fake = Fake::start().await;
    Image::new(71, &[KIB]).push(&fake, REPOSITORY, "latest");
    let layby = Layby::over(&fake).await;
    layby.get(LATEST).await.expect(200);
    fake.record().clear();
    for heads in 1..=3 {
        let reply = layby.get(LATEST).await.expect(200);
        assert_eq!(asked(&fake), (heads, 0));
        assert_eq!(reply.header("warning"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_tag_costs_one_get_and_is_served_at_once() {
    let (fake, layby, _) = tagged().await;
    layby.get(LATEST).await.expect(200);
    let newer = Image::new(72, &[KIB]);
    newer.push(&fake, REPOSITORY, "latest");
    fake.record().clear();
    layby.clock().advance(Duration::from_secs(61));
    for _ in 0..2 {
        assert_eq!(
            layby.get(LATEST).await.expect(200).body,
            newer.manifest.all()
        );
    }
    assert_eq!(asked(&fake), (1, 1));
}

/// What containerd and the kubelet do; the `GET` by tag never comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_and_a_get_by_digest_cost_one_get_and_keep_the_tag() {
    let (fake, layby, image) = tagged().await;
    let head = layby.head(LATEST).await.expect(200);
    let digest = head.header("docker-content-digest").expect("a digest");
    assert_eq!(digest, image.manifest.digest().as_str());
    let by_digest = format!("/v2/{REPOSITORY}/manifests/{digest}");
    assert_eq!(
        layby.get(&by_digest).await.expect(200).body,
        image.manifest.all()
    );
    assert_eq!(asked(&fake).1, 1);
    fake.go_down().await;
    layby.clock().advance(Duration::from_secs(61));
    assert_stale(&layby.get(LATEST).await, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_who_ask_for_a_cold_tag_at_once_cost_one_get() {
    let (fake, layby, image) = tagged().await;
    let gate = Gate::closed();
    fake.script(Rule::path("/manifests/").method("*").hold(&gate));
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let address = layby.address();
        clients.spawn(async move { get(address, LATEST).await.expect(200).body });
    }
    gate.reached().await;
    gate.open();
    while let Some(body) = clients.join_next().await {
        assert_eq!(body.unwrap(), image.manifest.all());
    }
    assert_eq!(asked(&fake).1, 1);
    assert!(asked(&fake).0 <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_of_the_upstream_is_answered_with_what_there_is() {
    for (status, code) in [
        (500, "UNKNOWN"),
        (503, "UNAVAILABLE"),
        (429, "TOOMANYREQUESTS"),
        (404, "MANIFEST_UNKNOWN"),
        (403, "DENIED"),
        (401, "UNAUTHORIZED"),
    ] {
        let (fake, layby, image) = tagged().await;
        layby.get(LATEST).await.expect(200);
        fake.script(Rule::path("/v2/").method("*").error(status, code));
        layby.clock().advance(Duration::from_secs(61));
        assert_stale(&layby.get(LATEST).await, &image);
        assert_eq!(
            layby.head(LATEST).await.expect(200).head.length(),
            Some(image.manifest.len())
        );
        assert!(
            layby.metric("stale_served_total", UPSTREAM).await >= 1.0,
            "{status}"
        );
        fake.mend();
        layby.clock().advance(Duration::from_secs(301));
        assert_eq!(
            layby.get(LATEST).await.expect(200).header("warning"),
            None,
            "{status}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_gone_is_asked_once_in_negative_ttl() {
    let (fake, layby, image) = tagged().await;
    layby.get(LATEST).await.expect(200);
    fake.script(Rule::path("/manifests/").method("*").error(500, "UNKNOWN"));
    layby.clock().advance(Duration::from_secs(61));
    fake.record().clear();
    for _ in 0..5 {
        assert_stale(&layby.get(LATEST).await, &image);
    }
    assert_eq!(asked(&fake).0 + asked(&fake).1, 1);
    layby.clock().advance(Duration::from_secs(11));
    assert_stale(&layby.get(LATEST).await, &image);
    assert_eq!(asked(&fake).0 + asked(&fake).1, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_answer_in_time_is_not_waited_for() {
    let (fake, mut layby, image) = tagged().await;
    layby
        .restart_with(|setup| setup.set("limits", r#"revalidate_timeout = "100ms""#))
        .await;
    layby.get(LATEST).await.expect(200);
    let gate = Gate::closed();
    fake.script(Rule::path("/manifests/").method("HEAD").hold(&gate));
    layby.clock().advance(Duration::from_secs(61));
    assert_stale(&layby.get(LATEST).await, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn within_stale_while_revalidate_the_client_does_not_wait() {
    let (fake, mut layby, image) = tagged().await;
    let line = r#"stale_while_revalidate = "30s""#;
    layby.restart_with(|setup| setup.of(UPSTREAM, line)).await;
    layby.get(LATEST).await.expect(200);
    let newer = Image::new(73, &[KIB]);
    newer.push(&fake, REPOSITORY, "latest");
    let gate = Gate::closed();
    fake.script(Rule::path("/manifests/").method("HEAD").hold(&gate));
    layby.clock().advance(Duration::from_secs(61));
    assert_eq!(
        layby.get(LATEST).await.expect(200).body,
        image.manifest.all()
    );
    gate.reached().await;
    gate.open();
    eventually("the new tag", || async {
        (layby.get(LATEST).await.body == newer.manifest.all()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_stale_is_not_wanted_the_upstreams_answer_is_given() {
    let (fake, mut layby, _) = tagged().await;
    layby
        .restart_with(|setup| {
            setup
                .of(UPSTREAM, r#"stale_if_gone = "0s""#)
                .of(UPSTREAM, r#"stale_if_denied = "0s""#)
                .of(UPSTREAM, r#"stale_if_error = "0s""#)
        })
        .await;
    for (status, code, expected, expected_code) in [
        (404, "MANIFEST_UNKNOWN", 404, "MANIFEST_UNKNOWN"),
        (403, "DENIED", 403, "DENIED"),
        (503, "UNAVAILABLE", 503, "UNAVAILABLE"),
        (429, "TOOMANYREQUESTS", 429, "TOOMANYREQUESTS"),
    ] {
        fake.mend();
        layby.clock().advance(Duration::from_secs(301));
        layby.get(LATEST).await.expect(200);
        fake.script(Rule::path("/v2/").method("*").error(status, code));
        layby.clock().advance(Duration::from_secs(61));
        let reply = layby.get(LATEST).await.expect(expected);
        assert_eq!(reply.code(), expected_code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_cold_content_become_the_right_errors() {
    for (status, body_code, expected, manifest_code, blob_code) in [
        (
            404,
            "MANIFEST_UNKNOWN",
            404,
            "MANIFEST_UNKNOWN",
            "BLOB_UNKNOWN",
        ),
        (404, "NAME_UNKNOWN", 404, "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"),
        (403, "DENIED", 403, "DENIED", "DENIED"),
        (401, "UNAUTHORIZED", 403, "DENIED", "DENIED"),
        (
            429,
            "TOOMANYREQUESTS",
            429,
            "TOOMANYREQUESTS",
            "TOOMANYREQUESTS",
        ),
        (500, "UNKNOWN", 503, "UNAVAILABLE", "UNAVAILABLE"),
        (502, "UNKNOWN", 503, "UNAVAILABLE", "UNAVAILABLE"),
    ] {
        let (fake, layby, image) = tagged().await;
        let rule = Rule::path("/v2/").method("*").error(status, body_code);
        fake.script(rule.header("retry-after", "7"));
        let blob = crate::support::blob_path(REPOSITORY, &image.layers[0]);
        for (path, code) in [(LATEST, manifest_code), (blob.as_str(), blob_code)] {
            let reply = layby.get(path).await;
            assert_eq!(
                reply.status(),
                expected,
                "{status} {path}: {}",
                reply.text()
            );
            assert_eq!(reply.code(), code, "{status} {path}");
            assert_eq!(layby.head(path).await.status(), expected, "{status} {path}");
            if status == 429 {
                let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
                assert!((1..=7).contains(&seconds), "{seconds}");
            }
        }
    }
    let (fake, layby, _) = tagged().await;
    fake.go_down().await;
    assert_eq!(layby.get(LATEST).await.expect(503).code(), "UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_tag_is_remembered_for_negative_ttl_and_then_found() {
    let (fake, layby, image) = tagged().await;
    let path = format!("/v2/{REPOSITORY}/manifests/soon");
    for _ in 0..4 {
        assert_eq!(
            layby.get(&path).await.expect(404).code(),
            "MANIFEST_UNKNOWN"
        );
    }
    let (heads, gets) = asked(&fake);
    assert_eq!(heads + gets, 1);
    fake.tag(REPOSITORY, "soon", image.manifest.digest());
    layby.clock().advance(Duration::from_secs(11));
    assert_eq!(
        layby.get(&path).await.expect(200).body,
        image.manifest.all()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moved_is_served_as_it_was_while_the_new_image_is_not_whole_and_cannot_be() {
    let (fake, layby, image) = tagged().await;
    layby.get(LATEST).await.expect(200);
    for blob in image.blobs() {
        layby.blob(REPOSITORY, blob).await.expect(blob);
    }
    layby.has_committed(REPOSITORY, image.blobs()).await;
    let newer = Image::new(74, &[KIB, KIB]);
    newer.push(&fake, REPOSITORY, "latest");
    layby.clock().advance(Duration::from_secs(61));
    assert_eq!(
        layby.get(LATEST).await.expect(200).body,
        newer.manifest.all()
    );

    fake.go_down().await;
    layby.clock().advance(Duration::from_secs(61));
    assert_stale(&layby.get(LATEST).await, &image);

    fake.come_back().await;
    layby.clock().advance(Duration::from_secs(61));
    assert_eq!(
        layby.get(LATEST).await.expect(200).body,
        newer.manifest.all()
    );
    for blob in newer.blobs() {
        layby.blob(REPOSITORY, blob).await.expect(blob);
    }
    fake.go_down().await;
    // The last blob's proof is written a moment after its reader has it.
    let reply = eventually("the newer image", || async {
        layby.clock().advance(Duration::from_secs(61));
        let reply = layby.get(LATEST).await;
        (reply.body == newer.manifest.all()).then_some(reply)
    });
    assert_stale(&reply.await, &newer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_no_tag() {
    let (fake, mut layby, image) = tagged().await;
    layby.get(LATEST).await.expect(200);
    fake.record().clear();
    layby.restart().await;
    assert_eq!(
        layby.get(LATEST).await.expect(200).body,
        image.manifest.all()
    );
    assert_eq!(asked(&fake), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_digest_length_or_type_costs_one_get() {
    for missing in ["docker-content-digest", "content-length", "content-type"] {
        let (fake, layby, image) = tagged().await;
        fake.script(Rule::path("/manifests/").method("HEAD").without(missing));
        for _ in 0..3 {
            let head = layby.head(LATEST).await.expect(200);
            assert_eq!(head.head.length(), Some(image.manifest.len()), "{missing}");
            assert_eq!(head.header("content-type"), Some(OCI_MANIFEST), "{missing}");
            let digest = head.header("docker-content-digest");
            assert_eq!(digest, Some(image.manifest.digest().as_str()), "{missing}");
        }
        assert_eq!(asked(&fake).1, 1, "{missing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_costs_a_get() {
    let (fake, layby, image) = tagged().await;
    fake.script(
        Rule::path("/manifests/")
            .method("HEAD")
            .error(405, "UNSUPPORTED"),
    );
    let head = layby.head(LATEST).await.expect(200);
    assert_eq!(head.head.length(), Some(image.manifest.len()));
    assert_eq!(
        layby.get(LATEST).await.expect(200).body,
        image.manifest.all()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn generic_types_are_replaced_and_parameters_stripped() {
    for sent in [
        "application/json",
        "text/plain; charset=utf-8",
        "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
    ] {
        let (fake, layby, image) = tagged().await;
        fake.script(
            Rule::path("/manifests/")
                .method("*")
                .header("content-type", sent),
        );
        let reply = layby.get(LATEST).await.expect(200);
        assert_eq!(reply.header("content-type"), Some(OCI_MANIFEST), "{sent}");
        assert_eq!(reply.body, image.manifest.all());
        let head = layby.head(LATEST).await.expect(200);
        assert_eq!(head.header("content-type"), Some(OCI_MANIFEST), "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_asked_for_all_types_and_no_coding() {
    let (fake, layby, _) = tagged().await;
    layby.get(LATEST).await.expect(200);
    for seen in fake.record().all() {
        let accept = seen.header("accept").unwrap_or_default();
        for wanted in MANIFEST_TYPES {
            assert!(accept.contains(wanted), "{wanted} is not in {accept}");
        }
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_1_is_a_clear_404() {
    let fake = Fake::start().await;
    let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let digest = fake.put_manifest(
        REPOSITORY,
        OCI_MANIFEST,
        r#"{"schemaVersion":1,"name":"app"}"#,
    );
    fake.tag(REPOSITORY, "latest", &digest);
    fake.script(
        Rule::path("/manifests/")
            .method("*")
            .header("content-type", old),
    );
    let layby = Layby::over(&fake).await;
    let reply = layby.get(LATEST).await.expect(404);
    assert!(reply.text().contains("schema"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_and_its_images_pass_byte_for_byte() {
    let fake = Fake::start().await;
    let images = [Image::new(75, &[KIB]), Image::new(76, &[KIB])];
    for image in &images {
        image.push(&fake, REPOSITORY, "part");
    }
    let index = index_of(&[&images[0], &images[1]]);
    let digest = fake.put_manifest(REPOSITORY, OCI_INDEX, index.all());
    fake.tag(REPOSITORY, "latest", &digest);
    let layby = Layby::over(&fake).await;
    for _ in 0..2 {
        let reply = layby.get(LATEST).await.expect(200);
        assert_eq!(reply.body, index.all());
        assert_eq!(reply.header("content-type"), Some(OCI_INDEX));
        for image in &images {
            let path = format!("/v2/{REPOSITORY}/manifests/{}", image.manifest.digest());
            assert_eq!(
                layby.get(&path).await.expect(200).body,
                image.manifest.all()
            );
        }
    }
}
