use bytes::Bytes;

use super::site::{INSTANCE, config};
use super::{Fake, Site, digest_of};
use crate::oci::MediaType;
use crate::proxy::{BlobUse, CacheOutcome, ListAnswer, StaleReason};

const MANIFEST: &[u8] = br#"{"schemaVersion":2, "oddly":  "spaced"}"#;

fn blob_path(digest: &crate::oci::Digest) -> String {
    format!("/v2/library/app/blobs/{digest}")
}

#[tokio::test]
async fn the_base_is_empty_json_with_and_without_slash_and_prefix() {
    let site = Site::start();
    for path in ["/v2/", "/v2", "/ghcr.io/v2/"] {
        let reply = site.get(path).await;
        assert_eq!((reply.status, reply.text()), (200, "{}"), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("content-length"), Some("2"));
        assert_eq!(
            reply.header("docker-distribution-api-version"),
            Some("registry/2.0")
        );
    }
}

#[tokio::test]
async fn a_manifest_by_tag_has_every_header_and_its_bytes_untouched() {
    let site = Site::start();
    site.fake.manifest("v1", MANIFEST, CacheOutcome::Miss);
    let reply = site.get("/v2/org/app/manifests/v1?ns=ghcr.io").await;
    let digest = digest_of(MANIFEST);
    assert_eq!((reply.status, &*reply.body), (200, MANIFEST));
    let expected = [
        ("accept-ranges", "none"),
        ("cache-control", "no-cache"),
        ("cache-status", "layby; fwd=miss; stored"),
        ("content-length", "39"),
        ("content-type", MediaType::OCI_MANIFEST),
        ("docker-content-digest", digest.as_str()),
        ("docker-distribution-api-version", "registry/2.0"),
        ("etag", &format!("\"{digest}\"")),
        ("oci-namespace", "ghcr.io"),
    ];
    assert_eq!(
        reply.lasting_headers(),
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[tokio::test]
async fn what_a_digest_names_may_be_kept_for_good() {
    let site = Site::start();
    let digest = digest_of(MANIFEST);
    site.fake
        .manifest(digest.as_str(), MANIFEST, CacheOutcome::Hit);
    let reply = site.get(&format!("/v2/org/app/manifests/{digest}")).await;
    assert_eq!(
        reply.header("cache-control"),
        Some("public, max-age=31536000, immutable")
    );
    assert_eq!(reply.header("oci-namespace"), None);
}

#[tokio::test]
async fn where_not_everyone_may_shared_caches_must_not_keep() {
    let mut config = config();
    config.clients = vec!["127.0.0.0/8".parse().unwrap()];
    let site = Site::with(&config);
    let digest = site.fake.blob(&b"x"[..]);
    let reply = site.get(&blob_path(&digest)).await;
    assert_eq!(
        reply.header("cache-control"),
        Some("private, max-age=31536000, immutable")
    );
}

#[tokio::test]
async fn a_stale_answer_carries_a_warning_that_clients_can_parse() {
    let site = Site::start();
    let stale = CacheOutcome::Stale(StaleReason::Unreachable);
    site.fake.manifest("v1", MANIFEST, stale);
    let reply = site.get("/v2/org/app/manifests/v1").await;
    assert_eq!(reply.header("warning"), Some("299 - \"it is 'old'\""));
    assert_eq!(reply.header("cache-status"), Some("layby; fwd=stale"));
}

#[tokio::test]
async fn head_and_get_agree_in_status_and_headers() {
    let site = Site::start();
    site.fake.manifest("v1", MANIFEST, CacheOutcome::Hit);
    *site.fake.list.lock() = Some(tags(None));
    let digest = site.fake.blob(vec![7; 5000]);
    let missing = digest_of(b"not there");
    for path in [
        "/v2/",
        "/healthz",
        "/v2/_catalog",
        "/v2/org/app/manifests/v1",
        "/v2/org/app/manifests/nothing",
        "/v2/org/app/tags/list",
        &blob_path(&digest),
        &blob_path(&missing),
        "/v2/org/app/blobs/sha256:bad",
        "/nowhere",
    ] {
        let id = "X-Request-Id: same";
        let get = site.ask("GET", path, &[id]).await;
        // On one connection, so that a byte of body behind the HEAD's answer would be seen.
        let mut wire = site.connect().await;
        let head = wire.exchange("HEAD", path, &[id]).await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.lasting_headers(), get.lasting_headers(), "{path}");
        let len = get.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(&*len), "{path}");
        let next = wire.exchange("GET", "/v2/", &[]).await;
        assert_eq!(next.status, 200, "{path}");
    }
}

#[tokio::test]
async fn head_of_a_blob_asks_for_its_size_alone() {
    let site = Site::start();
    let digest = site.fake.blob(vec![7; 5000]);
    site.ask("HEAD", &blob_path(&digest), &["Range: bytes=0-1"])
        .await;
    assert_eq!(*site.fake.usages.lock(), [BlobUse::Head]);
}

#[tokio::test]
async fn a_blob_comes_whole_from_memory_and_from_a_file() {
    let site = Site::start();
    let content: Vec<u8> = (0..=255).cycle().take(1_000_001).collect();
    for put in [
        |fake: &Fake, bytes: &[u8]| fake.blob(bytes.to_vec()),
        |fake: &Fake, bytes: &[u8]| fake.file_blob(bytes),
    ] {
        let digest = put(&site.fake, &content);
        let reply = site.get(&blob_path(&digest)).await;
        assert_eq!(reply.status, 200);
        assert!(reply.body == content, "other bytes");
        let etag = format!("\"{digest}\"");
        let expected = [
            ("accept-ranges", "bytes"),
            ("cache-control", "public, max-age=31536000, immutable"),
            ("cache-status", "layby; hit"),
            ("content-length", "1000001"),
            ("content-type", "application/octet-stream"),
            ("docker-content-digest", digest.as_str()),
            ("docker-distribution-api-version", "registry/2.0"),
            ("etag", &etag),
        ];
        assert_eq!(
            reply.lasting_headers(),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
    assert_eq!(*site.fake.usages.lock(), [BlobUse::Full, BlobUse::Full]);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_chunked_and_ends_as_such() {
    let site = Site::start();
    let digest = digest_of(b"hello");
    let sender = site.fake.live_blob(&digest, None);
    let feed = async move {
        for piece in [&b"hel"[..], b"lo"] {
            sender.send(Ok(Bytes::from_static(piece))).await.unwrap();
        }
    };
    let path = blob_path(&digest);
    let (reply, ()) = tokio::join!(site.get(&path), feed);
    assert_eq!((reply.text(), reply.whole), ("hello", true));
    assert_eq!(reply.header("content-length"), None);
}

#[tokio::test]
async fn an_empty_blob_has_length_zero() {
    let site = Site::start();
    let digest = site.fake.blob(Bytes::new());
    for method in ["GET", "HEAD"] {
        let reply = site.ask(method, &blob_path(&digest), &[]).await;
        assert_eq!(
            (reply.status, reply.header("content-length")),
            (200, Some("0"))
        );
    }
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let site = Site::start();
    site.fake.manifest("v1", MANIFEST, CacheOutcome::Hit);
    let blob = site.fake.blob(&b"content"[..]);
    for (path, digest) in [
        ("/v2/org/app/manifests/v1".to_owned(), digest_of(MANIFEST)),
        (blob_path(&blob), blob.clone()),
    ] {
        for condition in [format!("\"{digest}\""), digest.to_string(), "*".to_owned()] {
            let mut wire = site.connect().await;
            let header = format!("If-None-Match: {condition}");
            let reply = wire.exchange("GET", &path, &[&header]).await;
            assert_eq!(reply.status, 304, "{path} {condition}");
            assert_eq!(reply.header("etag"), Some(&*format!("\"{digest}\"")));
            assert_eq!(reply.header("content-type"), None);
            assert_eq!(reply.header("content-length"), None);
            assert_eq!(wire.exchange("GET", "/v2/", &[]).await.status, 200);
        }
    }
    let other = format!("If-None-Match: \"{}\"", digest_of(b"other"));
    let reply = site.ask("GET", &blob_path(&blob), &[&other]).await;
    assert_eq!((reply.status, reply.text()), (200, "content"));
}

#[tokio::test]
async fn a_condition_on_what_is_not_there_is_still_not_found() {
    let site = Site::start();
    let path = blob_path(&digest_of(b"not there"));
    assert_eq!(
        site.ask("GET", &path, &["If-None-Match: *"]).await.status,
        404
    );
}

fn tags(next: Option<&str>) -> ListAnswer {
    ListAnswer {
        body: Bytes::from_static(br#"{"name":"org/app","tags":["a"]}"#),
        media_type: MediaType::parse("application/json").unwrap(),
        next: next.map(str::to_owned),
        filters_applied: None,
        outcome: CacheOutcome::Miss,
        warning: None,
    }
}

#[tokio::test]
async fn a_lists_link_leads_back_the_way_the_client_came() {
    let site = Site::start();
    *site.fake.list.lock() = Some(tags(Some("last=a&n=1")));
    for (path, link) in [
        (
            "/v2/org/app/tags/list?n=1",
            "</v2/org/app/tags/list?last=a&n=1>; rel=\"next\"",
        ),
        (
            "/ghcr.io/v2/org/app/tags/list?n=1",
            "</ghcr.io/v2/org/app/tags/list?last=a&n=1>; rel=\"next\"",
        ),
        (
            "/v2/org/app/tags/list?n=1&ns=ghcr.io",
            "</v2/org/app/tags/list?last=a&n=1&ns=ghcr.io>; rel=\"next\"",
        ),
    ] {
        let reply = site.get(path).await;
        assert_eq!(reply.header("link"), Some(link));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("cache-control"), Some("no-cache"));
    }
}

#[tokio::test]
async fn referrers_say_which_filters_were_applied() {
    let site = Site::start();
    let subject = digest_of(MANIFEST);
    *site.fake.list.lock() = Some(ListAnswer {
        media_type: MediaType::parse(MediaType::OCI_INDEX).unwrap(),
        filters_applied: Some("artifactType".to_owned()),
        ..tags(Some("page=2"))
    });
    let path = format!("/v2/org/app/referrers/{subject}");
    let reply = site.get(&format!("{path}?artifactType=a%2Fb")).await;
    assert_eq!(reply.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(reply.header("content-type"), Some(MediaType::OCI_INDEX));
    let link = format!("<{path}?page=2>; rel=\"next\"");
    assert_eq!(reply.header("link"), Some(&*link));
}

#[tokio::test]
async fn the_catalog_is_paged() {
    let site = Site::start();
    *site.fake.catalog.lock() = ["docker.io/a", "docker.io/b", "ghcr.io/c"]
        .map(str::to_owned)
        .to_vec();
    let reply = site.get("/v2/_catalog?n=2").await;
    assert_eq!(
        reply.text(),
        r#"{"repositories":["docker.io/a","docker.io/b"]}"#
    );
    let link = reply.header("link").unwrap();
    assert_eq!(link, "</v2/_catalog?last=docker.io%2Fb&n=2>; rel=\"next\"");
    let next = link.split(['<', '>']).nth(1).unwrap();
    let reply = site.get(next).await;
    assert_eq!(reply.text(), r#"{"repositories":["ghcr.io/c"]}"#);
    assert_eq!(reply.header("link"), None);
}

#[tokio::test]
async fn the_clients_request_id_and_via_are_passed_on() {
    let site = Site::start();
    site.fake.manifest("v1", MANIFEST, CacheOutcome::Hit);
    let path = "/v2/org/app/manifests/v1";
    let reply = site
        .ask("GET", path, &["X-Request-Id: abc-1", "Via: 1.1 other"])
        .await;
    assert_eq!(reply.header("x-request-id"), Some("abc-1"));
    let via = site.fake.call.lock().clone().unwrap().via.unwrap();
    assert_eq!(via, "1.1 other");
    assert!(site.get(path).await.header("x-request-id").is_some());
    assert!(INSTANCE != "other");
}

#[tokio::test]
async fn a_manifest_counts_as_sent_when_it_is_and_not_when_it_is_only_looked_at() {
    let site = Site::start();
    site.fake.manifest("v1", MANIFEST, CacheOutcome::Hit);
    let path = "/v2/org/app/manifests/v1";
    site.ask("HEAD", path, &[]).await;
    let has = format!("If-None-Match: \"{}\"", digest_of(MANIFEST));
    site.ask("GET", path, &[&has]).await;
    assert_eq!(*site.fake.sent.lock(), []);
    site.ask("GET", path, &[]).await;
    assert_eq!(*site.fake.sent.lock(), [digest_of(MANIFEST)]);
}
