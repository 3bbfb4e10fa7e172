//! What real clients are picky about (PROTOCOL 8), letter by letter on a raw connection.

use std::collections::BTreeSet;

mod bodies;
mod ranges;

use crate::fake::{Content, Fake};
use crate::support::{
    End, Image, Layby, OCI_INDEX, OCI_MANIFEST, Reply, Request, Wire, blob_path, index_of,
};

const REPOSITORY: &str = "org/app";

/// A registry with an image whose single layer has 2048 bytes, an index of it, and Layby before it.
struct World {
    fake: Fake,
    layby: Layby,
    image: Image,
    index: Content,
}

impl World {
    async fn new() -> Self {
        let fake = Fake::start().await;
        let image = Image::new(30, &[2048]);
        image.push(&fake, REPOSITORY, "latest");
        let index = index_of(&[&image]);
        let digest = fake.put_manifest(REPOSITORY, OCI_INDEX, index.all());
        fake.tag(REPOSITORY, "index", &digest);
        fake.answer_referrers();
        let layby = Layby::over(&fake).await;
        Self {
            fake,
            layby,
            image,
            index,
        }
    }

    /// With everything cached.
    async fn warm() -> Self {
        let world = Self::new().await;
        for path in world.content() {
            world.layby.get(&path).await.expect(200);
        }
        world
    }

    fn layer(&self) -> &Content {
        &self.image.layers[0]
    }

    fn layer_path(&self) -> String {
        blob_path(REPOSITORY, self.layer())
    }

    fn manifest_path(&self) -> String {
        format!(
            "/v2/{REPOSITORY}/manifests/{}",
            self.image.manifest.digest()
        )
    }

    /// Manifests by tag and digest, an index, blobs.
    fn content(&self) -> Vec<String> {
        vec![
            format!("/v2/{REPOSITORY}/manifests/latest"),
            format!("/v2/{REPOSITORY}/manifests/index"),
            self.manifest_path(),
            format!("/v2/{REPOSITORY}/manifests/{}", self.index.digest()),
            self.layer_path(),
            blob_path(REPOSITORY, &self.image.config),
        ]
    }

    /// Other answers of every kind.
    fn others(&self) -> Vec<String> {
        vec![
            "/v2/".into(),
            "/v2".into(),
            format!("/v2/{REPOSITORY}/tags/list"),
            format!(
                "/v2/{REPOSITORY}/referrers/{}",
                self.image.manifest.digest()
            ),
            "/v2/_catalog".into(),
            format!("/v2/{REPOSITORY}/manifests/absent"),
            format!(
                "/v2/{REPOSITORY}/blobs/{}",
                Content::bytes("absent").digest()
            ),
            format!("/v2/{REPOSITORY}/blobs/sha256:short"),
            "/v2/Upper/manifests/latest".into(),
            "/v2/unknown.example/app/manifests/latest".into(),
            "/v2/nothing-of-this-kind".into(),
        ]
    }

    async fn ask(&self, request: Request) -> Reply {
        request.send_to(self.layby.address()).await
    }

    async fn range(&self, range: &str) -> Reply {
        self.ask(Request::get(self.layer_path()).range(range)).await
    }
}

// Line 1 of the table and of the list.
#[tokio::test(flavor = "multi_thread")]
async fn every_v2_answer_names_the_api_version() {
    let world = World::new().await;
    for path in world.content().into_iter().chain(world.others()) {
        for method in ["GET", "HEAD", "POST"] {
            let reply = world.ask(Request::new(method, &path)).await;
            let version = reply.header("docker-distribution-api-version");
            assert_eq!(
                version,
                Some("registry/2.0"),
                "{method} {path}\n{}",
                reply.head.raw
            );
        }
    }
}

// podman takes anything but 200 or 401 for a registry that is down.
#[tokio::test(flavor = "multi_thread")]
async fn the_ping_is_200_with_two_bytes_of_json() {
    let world = World::new().await;
    for path in [
        "/v2/",
        "/v2",
        "/registry.test/v2/",
        "/docker.io/v2/",
        "/v2/?ns=docker.io",
    ] {
        let reply = world.ask(Request::get(path)).await.expect(200);
        assert_eq!(reply.body, "{}", "{path}");
        assert_eq!(
            reply.header("content-type"),
            Some("application/json"),
            "{path}"
        );
        assert_eq!(reply.head.length(), Some(2), "{path}");
        let head = world.ask(Request::head(path)).await.expect(200);
        assert_eq!(head.head.comparable(), reply.head.comparable(), "{path}");
    }
}

// "reports content size of zero", "missing or empty Content-Type header", "missing signature key".
#[tokio::test(flavor = "multi_thread")]
async fn manifests_carry_type_length_digest_and_tag_on_get_and_head_cold_and_warm() {
    let fresh = World::new().await;
    let head_first = World::new().await;
    for (world, order) in [(&fresh, ["GET", "HEAD"]), (&head_first, ["HEAD", "GET"])] {
        for (reference, content, media_type) in [
            ("latest", &world.image.manifest, OCI_MANIFEST),
            ("index", &world.index, OCI_INDEX),
            (
                world.image.manifest.digest().as_str(),
                &world.image.manifest,
                OCI_MANIFEST,
            ),
        ] {
            for method in order {
                let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
                let reply = world.ask(Request::new(method, &path)).await.expect(200);
                let digest = content.digest().as_str();
                assert_eq!(
                    reply.header("content-type"),
                    Some(media_type),
                    "{method} {path}"
                );
                assert_eq!(reply.head.length(), Some(content.len()), "{method} {path}");
                assert_eq!(reply.header("docker-content-digest"), Some(digest));
                assert_eq!(reply.header("etag"), Some(format!("\"{digest}\"").as_str()));
                if method == "GET" {
                    assert_eq!(reply.body, content.all());
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_carry_length_digest_tag_and_accept_ranges_on_get_and_head_cold_and_warm() {
    for order in [["GET", "HEAD", "GET"], ["HEAD", "GET", "HEAD"]] {
        let world = World::new().await;
        for method in order {
            let reply = world
                .ask(Request::new(method, world.layer_path()))
                .await
                .expect(200);
            let digest = world.layer().digest().as_str();
            assert_eq!(
                reply.header("content-type"),
                Some("application/octet-stream")
            );
            assert_eq!(reply.head.length(), Some(2048));
            assert_eq!(reply.header("docker-content-digest"), Some(digest));
            assert_eq!(reply.header("etag"), Some(format!("\"{digest}\"").as_str()));
            assert_eq!(reply.header("accept-ranges"), Some("bytes"));
        }
    }
}

// List, line 4.
#[tokio::test(flavor = "multi_thread")]
async fn head_and_get_agree_in_status_and_headers() {
    let world = World::warm().await;
    for path in world.content().into_iter().chain(world.others()) {
        let get = world.ask(Request::get(&path)).await;
        let head = world.ask(Request::head(&path)).await;
        let (status, mut of_get) = get.head.comparable();
        let (head_status, mut of_head) = head.head.comparable();
        assert_eq!(head_status, status, "{path}");
        if status >= 400 {
            // An error's body names the request, so its length may differ by nothing but that.
            for headers in [&mut of_get, &mut of_head] {
                headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
            }
        }
        assert_eq!(of_head, of_get, "{path}");
    }
}

// HEAD has no body, not even where a GET's would follow; list, line 10: keep-alive.
#[tokio::test(flavor = "multi_thread")]
async fn many_answers_follow_each_other_on_one_connection() {
    let world = World::new().await;
    let mut wire = Wire::connect(world.layby.address()).await;
    for _ in 0..2 {
        for path in world.content().into_iter().chain(world.others()) {
            for method in ["HEAD", "GET"] {
                let reply = wire.ask(&Request::new(method, &path)).await;
                assert_eq!(reply.end, End::Complete, "{method} {path}");
                let connection = reply.header("connection").unwrap_or_default();
                assert!(!connection.eq_ignore_ascii_case("close"), "{method} {path}");
            }
        }
    }
    assert!(!wire.has_more_now());
}

// List, line 5.
#[tokio::test(flavor = "multi_thread")]
async fn errors_are_oci_json_with_the_right_code() {
    let world = World::new().await;
    let absent = Content::bytes("absent");
    for (path, status, code) in [
        (
            format!("/v2/{REPOSITORY}/manifests/absent"),
            404,
            "MANIFEST_UNKNOWN",
        ),
        (
            format!("/v2/{REPOSITORY}/manifests/{}", absent.digest()),
            404,
            "MANIFEST_UNKNOWN",
        ),
        (blob_path(REPOSITORY, &absent), 404, "BLOB_UNKNOWN"),
        (
            format!("/v2/{REPOSITORY}/tags/list?n=x"),
            400,
            "PAGINATION_NUMBER_INVALID",
        ),
        (
            format!("/v2/{REPOSITORY}/blobs/sha256:baddigest"),
            400,
            "DIGEST_INVALID",
        ),
        (
            format!("/v2/{REPOSITORY}/blobs/latest"),
            400,
            "DIGEST_INVALID",
        ),
        (
            format!("/v2/{REPOSITORY}/referrers/sha256:bad"),
            400,
            "DIGEST_INVALID",
        ),
        (
            "/v2/Upper/Case/manifests/latest".into(),
            400,
            "NAME_INVALID",
        ),
        (
            format!("/v2/{REPOSITORY}/manifests/-bad-tag"),
            400,
            "TAG_INVALID",
        ),
    ] {
        let reply = world.ask(Request::get(&path)).await.expect(status);
        assert_eq!(reply.code(), code, "{path}");
        assert_eq!(
            reply.header("content-type"),
            Some("application/json"),
            "{path}"
        );
        assert!(reply.head.length().is_some(), "{path}");
        assert!(reply.json()["errors"][0]["message"].is_string(), "{path}");
        // List, line 6: a 401 would have clients log in to us.
        assert_eq!(reply.header("www-authenticate"), None, "{path}");
    }
}

// The conformance suite takes either.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_by_a_bad_digest_is_400_or_404() {
    let world = World::new().await;
    let path = format!("/v2/{REPOSITORY}/manifests/sha256:baddigeststring");
    let reply = world.ask(Request::get(path)).await;
    assert!(matches!(reply.status(), 400 | 404), "{}", reply.head.raw);
}

// List, line 20.
#[tokio::test(flavor = "multi_thread")]
async fn every_other_method_is_405_with_allow() {
    let world = World::new().await;
    for path in world.content().into_iter().chain([
        "/v2/".into(),
        format!("/v2/{REPOSITORY}/blobs/uploads/"),
        format!("/v2/{REPOSITORY}/tags/list"),
    ]) {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let reply = world
                .ask(Request::new(method, &path).header("Content-Length", "0"))
                .await;
            assert_eq!(reply.status(), 405, "{method} {path}");
            let allow: BTreeSet<_> = reply.header("allow").unwrap().split(", ").collect();
            assert_eq!(allow, BTreeSet::from(["GET", "HEAD"]), "{method} {path}");
            assert_eq!(reply.code(), "UNSUPPORTED", "{method} {path}");
        }
    }
}

// List, line 10, and fact 13: containerd and Go clients offer codings.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_ever_coded_or_chunked() {
    let world = World::new().await;
    for _ in ["cold", "warm"] {
        for path in world.content().into_iter().chain(world.others()) {
            let offer = "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5";
            let request = Request::get(&path).header("Accept-Encoding", offer);
            let reply = world.ask(request.header("TE", "trailers")).await;
            for name in ["content-encoding", "transfer-encoding", "trailer"] {
                assert_eq!(reply.header(name), None, "{path}");
            }
            assert!(reply.head.length().is_some(), "{path}");
        }
    }
}

// Fact 14: what is stored is served whatever the client accepts.
#[tokio::test(flavor = "multi_thread")]
async fn the_clients_accept_changes_nothing() {
    let world = World::new().await;
    for accept in [
        "text/html",
        "application/vnd.docker.distribution.manifest.v2+json",
        "*/*",
        "",
    ] {
        let path = format!("/v2/{REPOSITORY}/manifests/latest");
        let reply = world
            .ask(Request::get(path).header("Accept", accept))
            .await
            .expect(200);
        assert_eq!(reply.body, world.image.manifest.all());
    }
}

// List, line 3.
#[tokio::test(flavor = "multi_thread")]
async fn paths_are_normalised_and_never_climb() {
    let world = World::new().await;
    let digest = world.layer().digest().as_str().replace(':', "%3A");
    for path in [
        format!("/v2/{REPOSITORY}/blobs/{digest}"),
        format!("/v2/{REPOSITORY}/blobs/{}", digest.replace("%3A", "%3a")),
        format!("/v2//org//app/blobs/{}", world.layer().digest()),
        format!("//v2/org/app/blobs/{}", world.layer().digest()),
        format!("/v2/org%2Fapp/blobs/{}", world.layer().digest()),
    ] {
        let reply = world.ask(Request::get(&path)).await;
        assert_eq!(reply.status(), 200, "{path}: {}", reply.text());
    }
    let connections = world.fake.record().all().len();
    for path in [
        format!("/v2/org/../org/app/blobs/{}", world.layer().digest()),
        format!("/v2/org/%2e%2e/app/blobs/{}", world.layer().digest()),
        format!("/v2/org/./app/blobs/{}", world.layer().digest()),
        "/v2/../../etc/passwd".into(),
        "/v2/org/app/manifests/..".into(),
    ] {
        let reply = world.ask(Request::get(&path)).await;
        assert!(
            matches!(reply.status(), 400 | 404),
            "{path}: {}",
            reply.head.raw
        );
    }
    assert_eq!(world.fake.record().all().len(), connections);
}

// List, line 14.
#[tokio::test(flavor = "multi_thread")]
async fn request_heads_of_almost_64_kib_are_taken() {
    let world = World::warm().await;
    let long = "x".repeat(60 * 1024);
    let request =
        Request::get(world.layer_path()).header("Authorization", &format!("Bearer {long}"));
    world.ask(request).await.expect(200);
    // More ranges than a header of 16 KiB can name, on which clients fall back.
    let ranges: Vec<_> = (0..4000).map(|n| format!("{n}-{}", n + 1)).collect();
    let text = ranges.join(",");
    assert!(text.len() > 16 * 1024);
    assert_eq!(world.range(&text).await.status(), 400);
}

// Lists, and facts 2 and 10 of the list about links.
#[tokio::test(flavor = "multi_thread")]
async fn lists_have_the_types_that_clients_insist_on() {
    let world = World::new().await;
    let tags = world
        .layby
        .get(&format!("/v2/{REPOSITORY}/tags/list"))
        .await
        .expect(200);
    assert_eq!(tags.header("content-type"), Some("application/json"));
    assert_eq!(
        tags.json(),
        serde_json::json!({ "name": REPOSITORY, "tags": ["index", "latest"] })
    );
    let none = world
        .layby
        .get(&format!("/v2/{REPOSITORY}/tags/list?n=0"))
        .await
        .expect(200);
    assert_eq!(none.json()["tags"], serde_json::json!([]));
    assert_eq!(none.header("link"), None);
    let digest = Content::bytes("nothing refers to this").digest().clone();
    let path = format!("/v2/{REPOSITORY}/referrers/{digest}");
    let referrers = world.layby.get(&path).await.expect(200);
    assert_eq!(referrers.header("content-type"), Some(OCI_INDEX));
    assert_eq!(referrers.json()["manifests"], serde_json::json!([]));
}
