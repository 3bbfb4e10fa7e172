use std::time::Duration;

use super::site::{INSTANCE, config};
use super::{Site, digest_of};
use crate::proxy::{Error, What};
use crate::upstream;

#[tokio::test]
async fn each_way_a_request_can_be_wrong_has_its_code() {
    let site = Site::start();
    let missing = format!("/v2/org/app/blobs/{}", digest_of(b"missing"));
    let referrers = format!("/v2/org/app/referrers/{}", digest_of(b"missing"));
    for (path, status, code) in [
        ("/v2/org/app/manifests/nothing", 404, "MANIFEST_UNKNOWN"),
        (&*missing, 404, "BLOB_UNKNOWN"),
        ("/v2/org/app/tags/list", 404, "NAME_UNKNOWN"),
        (&*referrers, 404, "MANIFEST_UNKNOWN"),
        ("/v2/unknown/manifests/v1", 404, "NAME_UNKNOWN"),
        ("/v2/forbidden/manifests/v1", 403, "DENIED"),
        ("/v2/UPPER/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/org/../app/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/org/app/blobs/sha256:bad", 400, "DIGEST_INVALID"),
        ("/v2/org/app/manifests/-bad", 400, "TAG_INVALID"),
        (
            "/v2/org/app/manifests/v1?ns=a.io&ns=b.io",
            400,
            "NAME_INVALID",
        ),
        (
            "/v2/org/app/tags/list?n=x",
            400,
            "PAGINATION_NUMBER_INVALID",
        ),
        ("/nowhere", 404, "UNSUPPORTED"),
    ] {
        let reply = site.get(path).await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.error().0, code, "{path}");
        assert_eq!(
            reply.header("docker-distribution-api-version"),
            Some("registry/2.0")
        );
        assert!(reply.header("content-length").is_some());
    }
}

#[tokio::test]
async fn only_get_and_head_are_served() {
    let site = Site::start();
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let reply = site
            .ask(method, "/v2/org/app/blobs/uploads/", &["Content-Length: 0"])
            .await;
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow"), Some("GET, HEAD"));
        assert_eq!(reply.error().0, "UNSUPPORTED");
    }
}

#[tokio::test]
async fn an_upstreams_refusal_becomes_the_right_error() {
    use upstream::Error as E;
    let message = || "what to do".to_owned();
    let cases = [
        (
            E::Denied {
                message: message(),
                ours: true,
            },
            (403, "DENIED"),
        ),
        (
            E::RateLimited {
                retry_after: Some(Duration::from_millis(7200)),
                message: message(),
            },
            (429, "TOOMANYREQUESTS"),
        ),
        (E::Unavailable { message: message() }, (503, "UNAVAILABLE")),
        (
            E::Refused {
                message: "set `token_hosts`: what to do".to_owned(),
                key: "token_hosts",
            },
            (403, "DENIED"),
        ),
        (E::Invalid { message: message() }, (502, "UNAVAILABLE")),
        (E::Corrupt { message: message() }, (502, "UNAVAILABLE")),
    ];
    let site = Site::start();
    for (error, expected) in cases {
        site.fake.failing("v1", Error::Upstream(error.clone()));
        let reply = site.get("/v2/org/app/manifests/v1").await;
        let (code, text) = reply.error();
        assert_eq!((reply.status, &*code), expected, "{error}");
        assert!(text.contains("what to do"), "{text}");
        assert_eq!(reply.header("www-authenticate"), None);
        let wait = (reply.status == 429).then_some("8");
        assert_eq!(reply.header("retry-after"), wait);
    }
}

#[tokio::test]
async fn our_own_failures_are_never_a_bare_500() {
    let site = Site::start();
    let disk = std::io::Error::from(std::io::ErrorKind::StorageFull);
    for (error, status, code) in [
        (Error::from(disk), 503, "UNAVAILABLE"),
        (Error::Stopping, 503, "UNAVAILABLE"),
        (
            Error::NotCached {
                what: What::Manifest,
            },
            404,
            "MANIFEST_UNKNOWN",
        ),
    ] {
        site.fake.failing("v1", error);
        let reply = site.get("/v2/org/app/manifests/v1").await;
        assert_eq!((reply.status, &*reply.error().0), (status, code));
    }
}

#[tokio::test]
async fn a_request_that_comes_round_again_is_an_error() {
    let site = Site::start();
    let own = format!("layby-{INSTANCE}");
    for via in [
        format!("Via: 1.1 {own}"),
        format!("Via: 1.0 a, 1.1 {own} (layby)"),
    ] {
        let reply = site.ask("GET", "/v2/org/app/manifests/v1", &[&via]).await;
        assert_eq!(reply.status, 508, "{via}");
        assert!(reply.error().1.contains("url"));
    }
    assert_eq!(
        site.ask("GET", "/v2/", &["Via: 1.1 layby-other"])
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn who_is_no_client_is_told_which_key_lets_them_in() {
    let mut config = config();
    config.clients = vec!["10.0.0.0/8".parse().unwrap()];
    let site = Site::with(&config);
    for path in ["/v2/", "/v2/org/app/manifests/v1", "/nowhere"] {
        let reply = site.get(path).await;
        let (code, message) = reply.error();
        assert_eq!((reply.status, &*code), (403, "DENIED"), "{path}");
        assert!(
            message.contains("`clients`") && message.contains("127.0.0.1"),
            "{message}"
        );
    }
    assert_eq!(site.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn the_catalog_can_be_turned_off() {
    let mut config = config();
    config.catalog = false;
    let reply = Site::with(&config).get("/v2/_catalog").await;
    assert_eq!((reply.status, &*reply.error().0), (404, "UNSUPPORTED"));
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_its_head_much_longer_than_the_deadline() {
    let site = Site::start();
    *site.fake.hangs.lock() = true;
    let asked = tokio::time::Instant::now();
    let reply = site.get("/v2/org/app/manifests/v1").await;
    assert_eq!((reply.status, &*reply.error().0), (503, "UNAVAILABLE"));
    assert!(
        asked.elapsed() < Duration::from_secs(25),
        "{:?}",
        asked.elapsed()
    );
    let deadline = site.fake.call.lock().clone().unwrap().deadline;
    assert_eq!((deadline - asked).as_secs(), 20);
}
