//! Manifests: what counts as one, and what `HEAD` may leave out.

use super::fakes::{Answer, Fake};
use super::*;
use crate::oci::Reference;
use crate::upstream::{Manifest, ManifestHead};

async fn get(registry: &Fake, reference: &Reference) -> Result<Manifest, Error> {
    let upstream = World::new(&[&registry.url()]).upstream();
    upstream
        .get_manifest(&repository(), reference, &call())
        .await
}

async fn head(registry: &Fake, reference: &Reference) -> Result<ManifestHead, Error> {
    let upstream = World::new(&[&registry.url()]).upstream();
    upstream
        .head_manifest(&repository(), reference, &call())
        .await
}

#[tokio::test]
async fn a_manifest_comes_as_it_is_with_its_digest_and_type() {
    let registry = Fake::plain(index).await;
    let manifest = get(&registry, &tag()).await.unwrap();
    assert_eq!(manifest.bytes, index_bytes());
    assert_eq!(manifest.digest, Digest::sha256(&index_bytes()));
    assert_eq!(manifest.media_type.as_str(), INDEX);
    assert_eq!(manifest.etag.as_deref(), Some("\"e\""));
    let seen = &registry.seen()[0];
    assert_eq!(seen.path(), "/v2/org/app/manifests/latest");
    assert_eq!(seen.header("accept"), Some(MediaType::ACCEPT));
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_complete_head_needs_no_get() {
    let registry = Fake::plain(index).await;
    let head = head(&registry, &tag()).await.unwrap();
    assert_eq!(head.digest, Digest::sha256(&index_bytes()));
    assert_eq!(head.len, index_bytes().len() as u64);
    assert_eq!(head.media_type.as_str(), INDEX);
    assert_eq!(head.body, None);
    assert_eq!(registry.seen().len(), 1);
    assert_eq!(registry.seen()[0].header("accept"), Some(MediaType::ACCEPT));
}

#[tokio::test]
async fn a_head_that_lacks_something_costs_one_get() {
    let digest = Digest::sha256(&index_bytes()).to_string();
    let incomplete = [
        Answer::ok(index_bytes()).with("content-type", INDEX),
        Answer::ok(index_bytes()).with("docker-content-digest", &digest),
        Answer::ok(index_bytes())
            .with("content-type", "text/plain")
            .with("docker-content-digest", &digest),
        Answer::ok("")
            .with("content-type", INDEX)
            .with("docker-content-digest", &digest),
        Answer::new(405, ""),
    ];
    for answer in incomplete {
        let registry = Fake::plain(move |seen| {
            if seen.method == "HEAD" {
                answer.clone()
            } else {
                index(seen)
            }
        })
        .await;
        let head = head(&registry, &tag()).await.unwrap();
        assert_eq!(head.digest.as_str(), digest);
        assert_eq!(head.len, index_bytes().len() as u64);
        assert_eq!(head.media_type.as_str(), INDEX);
        assert_eq!(head.body.unwrap().bytes, index_bytes());
        assert_eq!(registry.seen().len(), 2);
    }
}

#[tokio::test]
async fn an_absent_tag_costs_no_get() {
    let registry = Fake::plain(|_| Answer::new(404, "")).await;
    assert!(matches!(
        head(&registry, &tag()).await,
        Err(Error::NotFound { .. })
    ));
    assert_eq!(registry.seen().len(), 1);
}

#[tokio::test]
async fn a_generic_type_is_replaced_by_the_bodys_own_and_parameters_are_dropped() {
    for sent in [
        "application/json",
        "text/plain; charset=utf-8",
        "application/vnd.oci.image.index.v1+json; charset=utf-8",
    ] {
        let registry =
            Fake::plain(move |_| Answer::ok(index_bytes()).with("content-type", sent)).await;
        assert_eq!(
            get(&registry, &tag()).await.unwrap().media_type.as_str(),
            INDEX,
            "{sent}"
        );
    }
}

#[tokio::test]
async fn the_digest_is_computed_where_the_upstreams_is_missing_or_wrong() {
    for named in [
        None,
        Some(Digest::sha256(b"else").to_string()),
        Some("nonsense".to_owned()),
    ] {
        let registry = Fake::plain(move |_| {
            let answer = Answer::ok(index_bytes()).with("content-type", INDEX);
            match &named {
                Some(named) => answer.with("docker-content-digest", named),
                None => answer,
            }
        })
        .await;
        assert_eq!(
            get(&registry, &tag()).await.unwrap().digest,
            Digest::sha256(&index_bytes())
        );
    }
}

#[tokio::test]
async fn a_manifest_asked_by_digest_must_match_it() {
    let registry = Fake::plain(index).await;
    let right = Reference::Digest(Digest::sha256(&index_bytes()));
    assert_eq!(
        Reference::Digest(get(&registry, &right).await.unwrap().digest),
        right
    );

    let wrong = Reference::Digest(Digest::sha256(b"else"));
    let world = World::new(&[&registry.url()]);
    let error = world
        .upstream()
        .get_manifest(&repository(), &wrong, &call())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    let counted = r#"layby_verify_failures_total{upstream="registry.example"} 1"#;
    assert!(world.metrics.render().contains(counted));
    assert!(matches!(
        head(&registry, &wrong).await,
        Err(Error::Corrupt { .. })
    ));
}

#[tokio::test]
async fn a_digest_of_another_algorithm_is_verified_as_asked() {
    let registry = Fake::plain(index).await;
    let sha512 = Digest::of(crate::oci::Algorithm::Sha512, &index_bytes()).unwrap();
    let asked = Reference::Digest(sha512.clone());
    assert_eq!(get(&registry, &asked).await.unwrap().digest, sha512);
    assert_eq!(head(&registry, &asked).await.unwrap().digest, sha512);
}

#[tokio::test]
async fn what_is_no_manifest_is_refused() {
    let big = || vec![b' '; (4 << 20) + 1];
    let answers = [
        Answer::ok("<html>").with("content-type", "text/html; charset=utf-8"),
        Answer::ok("<html>").with("content-type", INDEX),
        Answer::ok(index_bytes())
            .with("content-type", INDEX)
            .with("content-encoding", "gzip"),
        Answer::ok(r#"{"layers":[],"manifests":[],"config":{}}"#).with("content-type", INDEX),
        Answer::ok(big()).with("content-type", INDEX),
        Answer::ok(big())
            .with("content-type", INDEX)
            .with("no-length", ""),
        Answer::new(206, index_bytes()).with("content-type", INDEX),
        Answer::new(204, "").with("no-length", ""),
    ];
    for answer in answers {
        let shown = format!("{:.200}", format!("{answer:?}"));
        let registry = Fake::plain(move |_| answer.clone()).await;
        let result = get(&registry, &tag()).await;
        assert!(
            matches!(result, Err(Error::Invalid { .. })),
            "{shown}: {result:?}"
        );
    }
}

#[tokio::test]
async fn schema_1_is_not_found() {
    let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let registry = Fake::plain(move |_| {
        let body = r#"{"schemaVersion":1,"fsLayers":[]}"#;
        Answer::ok(body)
            .with("content-type", schema1)
            .with("docker-content-digest", Digest::sha256(b"x").to_string())
    })
    .await;
    let (got, headed) = (get(&registry, &tag()).await, head(&registry, &tag()).await);
    assert!(matches!(got, Err(Error::NotFound { .. })), "{got:?}");
    assert!(matches!(headed, Err(Error::NotFound { .. })), "{headed:?}");
}

#[tokio::test]
async fn a_head_of_a_web_page_is_refused() {
    let registry = Fake::plain(move |_| {
        Answer::ok("x")
            .with("content-type", "text/html")
            .with("docker-content-digest", Digest::sha256(b"x").to_string())
    })
    .await;
    let result = head(&registry, &tag()).await;
    assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
}

#[tokio::test]
async fn a_manifest_that_breaks_off_is_unavailable() {
    let registry = Fake::plain(|_| {
        Answer::ok("{")
            .with("content-type", INDEX)
            .with("content-length", "100")
            .then_break()
    })
    .await;
    assert!(matches!(
        get(&registry, &tag()).await,
        Err(Error::Unavailable { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_manifest_must_be_there_before_the_deadline() {
    let registry = Fake::plain(|_| {
        Answer::ok("{")
            .with("content-type", INDEX)
            .with("content-length", "100")
            .then_hang()
    })
    .await;
    let began = Instant::now();
    assert!(matches!(
        get(&registry, &tag()).await,
        Err(Error::Unavailable { .. })
    ));
    assert_eq!(began.elapsed().as_secs(), 20);
}

#[tokio::test]
async fn the_quota_that_is_left_is_kept() {
    let registry = Fake::plain(|seen| index(seen).with("ratelimit-remaining", "76;w=21600")).await;
    let world = World::new(&[&registry.url()]);
    world
        .upstream()
        .get_manifest(&repository(), &tag(), &call())
        .await
        .unwrap();
    let text = world.metrics.render();
    for line in [
        r#"layby_upstream_ratelimit_remaining{upstream="registry.example"} 76"#,
        r#"layby_upstream_requests_total{upstream="registry.example",kind="manifest",status="200"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test]
async fn a_refusal_carries_the_upstreams_words() {
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    let registry = Fake::plain(move |_| Answer::new(429, body).with("retry-after", "60")).await;
    let Err(Error::RateLimited {
        retry_after,
        message,
    }) = get(&registry, &tag()).await
    else {
        panic!("not rate-limited");
    };
    assert_eq!(retry_after, Some(Duration::from_secs(60)));
    assert!(
        message.contains("You have reached your pull rate limit."),
        "{message}"
    );
}
