//! What real clients are picky about (PROTOCOL 8), letter by letter on a raw connection.

use std::collections::BTreeSet;

use crate::fake::{Content, Fake, Gate, Rule};
use crate::support::{
    End, Identity, Image, KIB, Layby, OCI_INDEX, OCI_MANIFEST, Reply, Request, Setup, Wire,
    blob_path, index_of,
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

// List, lines 7 and 8, and the conformance suite's cases on 2048 bytes.
#[tokio::test(flavor = "multi_thread")]
async fn single_ranges_are_answered_as_the_conformance_suite_wants_cold_and_warm() {
    let cases = [
        ("500-1499", 500, 1500),
        ("500-", 500, 2048),
        ("-500", 1548, 2048),
        ("2000-5000", 2000, 2048),
        ("0-", 0, 2048),
        ("0-0", 0, 1),
        ("2047-2047", 2047, 2048),
        ("0-2047", 0, 2048),
        ("-5000", 0, 2048),
    ];
    let warm = World::warm().await;
    for (range, start, end) in cases {
        let cold = World::new().await;
        for world in [&cold, &warm] {
            let reply = world.range(range).await.expect(206);
            assert_eq!(reply.body, world.layer().read(start..end), "{range}");
            let expected = format!("bytes {start}-{}/2048", end - 1);
            assert_eq!(
                reply.header("content-range"),
                Some(expected.as_str()),
                "{range}"
            );
            assert_eq!(reply.head.length(), Some(end - start), "{range}");
            assert_eq!(
                reply.header("content-type"),
                Some("application/octet-stream")
            );
            assert_eq!(reply.header("accept-ranges"), Some("bytes"));
            let digest = world.layer().digest().as_str();
            assert_eq!(reply.header("docker-content-digest"), Some(digest));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_cannot_be_satisfied_are_416_with_the_length_cold_and_warm() {
    let warm = World::warm().await;
    for range in ["500-0", "5000-10000", "2048-", "-0"] {
        let cold = World::new().await;
        for world in [&cold, &warm] {
            let reply = world.range(range).await.expect(416);
            assert_eq!(
                reply.header("content-range"),
                Some("bytes */2048"),
                "{range}"
            );
            assert_eq!(reply.code(), "RANGE_INVALID", "{range}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_none_is_ignored() {
    let world = World::warm().await;
    for value in [
        "lines=1-2",
        "bytes",
        "bytes=",
        "bytes=a-b",
        "bytes=1",
        "0-5",
    ] {
        let request = Request::get(world.layer_path()).header("Range", value);
        let reply = world.ask(request).await.expect(200);
        assert_eq!(reply.body, world.layer().all(), "{value}");
        assert_eq!(reply.header("content-range"), None, "{value}");
    }
    let head = Request::head(world.layer_path()).range("0-5");
    assert_eq!(world.ask(head).await.status(), 200);
}

/// One part of a multipart answer: its `Content-Range` and its bytes.
fn parts(reply: &Reply) -> Vec<(String, Vec<u8>)> {
    let kind = reply.header("content-type").expect("a type");
    let boundary = kind
        .split("boundary=")
        .nth(1)
        .expect("a boundary")
        .trim_matches('"');
    assert!(kind.starts_with("multipart/byteranges"), "{kind}");
    let mut rest: &[u8] = &reply.body;
    let mut found = Vec::new();
    loop {
        let start = format!("--{boundary}");
        let at = rest
            .windows(start.len())
            .position(|w| w == start.as_bytes())
            .expect("a part");
        rest = &rest[at + start.len()..];
        if rest.starts_with(b"--") {
            return found;
        }
        let end = rest
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("a part's head");
        let head = String::from_utf8(rest[..end].to_vec()).expect("ASCII");
        let line = head
            .lines()
            .find(|l| l.to_ascii_lowercase().starts_with("content-range:"));
        let range = line
            .expect("a Content-Range")
            .split_once(": ")
            .unwrap()
            .1
            .to_owned();
        let (from, to) = range["bytes ".len()..]
            .split('/')
            .next()
            .unwrap()
            .split_once('-')
            .unwrap();
        let len = to.parse::<usize>().unwrap() + 1 - from.parse::<usize>().unwrap();
        found.push((range.clone(), rest[end + 4..end + 4 + len].to_vec()));
        rest = &rest[end + 4 + len..];
    }
}

// Fact 12: containers/image counts the parts.
#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_get_one_part_each_in_order_and_never_joined_cold_and_warm() {
    let warm = World::warm().await;
    let cold = World::new().await;
    for world in [&cold, &warm] {
        let reply = world
            .range("0-9,10-19, 5-14,2000-3000,-3")
            .await
            .expect(206);
        assert!(reply.head.length().is_some());
        assert_eq!(reply.header("content-range"), None);
        let expected: Vec<_> = [(0, 10), (10, 20), (5, 15), (2000, 2048), (2045, 2048)]
            .map(|(start, end)| {
                let range = format!("bytes {start}-{}/2048", end - 1);
                (range, world.layer().read(start..end).to_vec())
            })
            .into();
        assert_eq!(parts(&reply), expected);
    }
    // Those that lie behind the end are left out; one that is left is no multipart.
    let reply = warm.range("0-3,5000-6000").await.expect(206);
    assert_eq!(reply.body, warm.layer().read(0..4));
    assert_eq!(warm.range("4000-,5000-6000").await.status(), 416);
}

// stargz, SOCI and containers/image fall back to fewer ranges on exactly this.
#[tokio::test(flavor = "multi_thread")]
async fn more_ranges_than_are_served_are_400() {
    let world = World::warm().await;
    let ranges: Vec<_> = (0..2000).map(|n| format!("{n}-{n}")).collect();
    let reply = world.range(&ranges.join(",")).await;
    assert_eq!(reply.status(), 400, "{}", reply.head.raw);
}

#[tokio::test(flavor = "multi_thread")]
async fn if_range_takes_our_tag_and_nothing_else() {
    let world = World::warm().await;
    let tag = format!("\"{}\"", world.layer().digest());
    for (value, status) in [
        (tag.as_str(), 206),
        ("\"something-else\"", 200),
        (&format!("W/{tag}"), 200),
        ("Sat, 21 Nov 2026 00:00:00 GMT", 200),
    ] {
        let request = Request::get(world.layer_path())
            .range("1-2")
            .header("If-Range", value);
        assert_eq!(world.ask(request).await.status(), status, "{value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_none_match_takes_quoted_and_bare_and_gives_304_without_a_body() {
    let world = World::warm().await;
    for path in world.content() {
        let digest = world.layby.get(&path).await;
        let digest = digest.header("docker-content-digest").expect("a digest");
        let none = format!("\"{}\"", Content::bytes("none").digest());
        for (value, status) in [
            (format!("\"{digest}\""), 304),
            (digest.to_owned(), 304),
            (format!("W/\"{digest}\""), 304),
            (format!("{none}, \"{digest}\""), 304),
            ("*".into(), 304),
            (none, 200),
        ] {
            for method in ["GET", "HEAD"] {
                let request = Request::new(method, &path).header("If-None-Match", &value);
                let reply = world.ask(request).await;
                assert_eq!(reply.status(), status, "{method} {path} {value}");
                let tag = format!("\"{digest}\"");
                assert_eq!(
                    reply.header("etag"),
                    Some(tag.as_str()),
                    "{method} {path} {value}"
                );
            }
        }
    }
    let mut wire = Wire::connect(world.layby.address()).await;
    let matching = Request::get(world.layer_path()).header("If-None-Match", "*");
    assert_eq!(wire.ask(&matching).await.status(), 304);
    assert_eq!(wire.ask(&Request::get("/v2/")).await.expect(200).body, "{}");
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

#[tokio::test(flavor = "multi_thread")]
async fn tls_serves_both_protocols_and_large_heads_over_http_2() {
    let scratch = tempfile::tempdir().unwrap();
    let identity = Identity::new(&[]);
    identity.write_to(scratch.path());
    let file = |name: &str| format!("{:?}", scratch.path().join(name).display().to_string());
    let fake = Fake::start().await;
    let image = Image::new(31, &[300 * KIB]);
    image.push(&fake, REPOSITORY, "latest");
    let layby = Setup::over(&fake)
        .set("tls", r#"listen = "127.0.0.1:0""#)
        .set("tls", &format!("cert_file = {}", file("cert.pem")))
        .set("tls", &format!("key_file = {}", file("key.pem")))
        .start()
        .await;
    let layer = &image.layers[0];
    let path = blob_path(REPOSITORY, layer);

    let one = identity.client(&["http/1.1"]);
    let (mut wire, protocol) = Wire::connect_tls(layby.tls_address(), one).await;
    assert_eq!(protocol.as_deref(), Some(b"http/1.1".as_slice()));
    assert_eq!(
        wire.ask(&Request::get(&path)).await.expect(200).body,
        layer.all()
    );

    let two = identity.client(&["h2", "http/1.1"]);
    let mut client = crate::support::Http2::connect(layby.tls_address(), two).await;
    let long = "x".repeat(40 * 1024);
    let (head, body) = client.get(&path, &[("authorization", &long)]).await;
    assert_eq!(head.status, 200);
    assert_eq!(
        head.headers["docker-content-digest"],
        layer.digest().as_str()
    );
    assert_eq!(body.as_ref(), Ok(&layer.all()));
    let (head, _) = client.head(&path).await;
    assert_eq!(head.headers["content-length"], layer.len().to_string());

    // A body that cannot be finished ends its stream with an error, and no other stream.
    let broken = Content::random(32, 300 * KIB);
    fake.put_blob(REPOSITORY, &broken);
    fake.script(Rule::digest(broken.digest()).flip(7));
    let (_, body) = client.get(&blob_path(REPOSITORY, &broken), &[]).await;
    assert!(body.is_err());
    let (head, _) = client.get("/v2/", &[]).await;
    assert_eq!(head.status, 200);
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

// Fact 7: what fails does so before the status line; line 18: what fails later breaks the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_middle_breaks_the_connection_and_one_before_is_an_error() {
    let world = World::new().await;
    let content = Content::random(33, 600 * KIB);
    world.fake.put_blob(REPOSITORY, &content);
    world.fake.script(
        Rule::digest(content.digest())
            .method("*")
            .error(503, "UNAVAILABLE"),
    );
    let path = blob_path(REPOSITORY, &content);
    assert_eq!(world.layby.get(&path).await.status(), 503);

    let world = World::new().await;
    world.fake.put_blob(REPOSITORY, &content);
    world
        .fake
        .script(Rule::digest(content.digest()).flip(600 * KIB - 1));
    let mut wire = Wire::connect(world.layby.address()).await;
    wire.send(&Request::get(&path)).await;
    let head = wire.head().await;
    let reply = wire.rest(head).await;
    assert_eq!((reply.status(), reply.end), (200, End::Broken));
    assert!((reply.body.len() as u64) < content.len());
    assert!(wire.is_closed().await);
}

// Fact 8: containerd gives up on a head after 30 s, so heads must not wait for bodies.
#[tokio::test(flavor = "multi_thread")]
async fn the_head_of_a_blob_does_not_wait_for_its_body() {
    let world = World::new().await;
    let content = Content::random(34, 600 * KIB);
    world.fake.put_blob(REPOSITORY, &content);
    let gate = Gate::closed();
    world
        .fake
        .script(Rule::digest(content.digest()).wait_at(0, &gate));
    let mut wire = Wire::connect(world.layby.address()).await;
    wire.send(&Request::get(blob_path(REPOSITORY, &content)))
        .await;
    let head = wire.head().await;
    assert_eq!((head.status, head.length()), (200, Some(content.len())));
    gate.open();
    wire.hash_rest(head).await.expect(&content);
}
