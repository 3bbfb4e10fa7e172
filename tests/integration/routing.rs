//! Which upstream a request is for: each step of the order, and what is easily confused.

use serde_json::json;

use crate::fake::Fake;
use crate::support::{Layby, OCI_MANIFEST, Reply, Request, Setup};

/// Registries that hold a manifest in every repository that tests name; it tells whose it is.
struct World {
    layby: Layby,
    fakes: Vec<(&'static str, Fake)>,
}

const REPOSITORIES: [&str; 6] = [
    "library/app",
    "org/app",
    "myorg/app",
    "app",
    "gh/org/app",
    "org/manifests/blobs",
];

impl World {
    async fn new() -> Self {
        let mut setup = Setup::new().set("", r#"server_names = ["cache.example"]"#);
        let mut fakes = Vec::new();
        for name in ["docker.io", "ghcr.io", "myorg", "registry.local:5000"] {
            let fake = Fake::start().await;
            for repository in REPOSITORIES {
                let digest =
                    fake.put_manifest(repository, OCI_MANIFEST, manifest(name, repository));
                fake.tag(repository, "latest", &digest);
                fake.tag(repository, "v1", &digest);
            }
            setup = setup.upstream(name, &fake);
            fakes.push((name, fake));
        }
        let layby = setup
            .of("ghcr.io", r#"prefixes = ["gh"]"#)
            .of("ghcr.io", r#"hosts = ["ghcr.mirror.test"]"#)
            .of("registry.local:5000", r#"aliases = ["registry.local"]"#)
            .of("ghcr.io", r#"deny = ["secret/**"]"#)
            .start()
            .await;
        Self { layby, fakes }
    }

    fn connections(&self) -> u64 {
        self.fakes
            .iter()
            .map(|(_, fake)| fake.record().connections())
            .sum()
    }

    async fn ask(&self, prefix: &str, repository: &str, query: &str, host: Option<&str>) -> Reply {
        let path = format!("{prefix}/v2/{repository}/manifests/latest{query}");
        let request = Request::get(path);
        let request = match host {
            Some(host) => request.host(host),
            None => request,
        };
        request.send_to(self.layby.address()).await
    }
}

fn manifest(upstream: &str, repository: &str) -> String {
    let body = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "a/b", "size": 2, "digest": crate::fake::Content::bytes("{}").digest().as_str() },
        "layers": [],
        "annotations": { "from": format!("{upstream} {repository}") },
    });
    body.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_the_order_finds_its_upstream() {
    let world = World::new().await;
    let own = format!("?ns={}", world.layby.address());
    // prefix, repository, query, host, upstream, its repository
    let cases: &[(&str, &str, &str, Option<&str>, &str, &str)] = &[
        // 1. A prefix before /v2/.
        ("/ghcr.io", "org/app", "", None, "ghcr.io", "org/app"),
        ("/GHCR.io", "org/app", "", None, "ghcr.io", "org/app"),
        (
            "/ghcr.io",
            "org/app",
            "?ns=docker.io",
            None,
            "ghcr.io",
            "org/app",
        ),
        ("/gh", "org/app", "", None, "ghcr.io", "org/app"),
        ("/myorg", "app", "", None, "myorg", "app"),
        ("/docker.io", "app", "", None, "docker.io", "library/app"),
        (
            "/registry.local:5000",
            "app",
            "",
            None,
            "registry.local:5000",
            "app",
        ),
        (
            "/registry.local",
            "app",
            "",
            None,
            "registry.local:5000",
            "app",
        ),
        // 2. A first component that is an upstream; it is stripped, whatever `ns` says.
        ("", "ghcr.io/org/app", "", None, "ghcr.io", "org/app"),
        (
            "",
            "ghcr.io/org/app",
            "?ns=ghcr.io",
            None,
            "ghcr.io",
            "org/app",
        ),
        (
            "",
            "ghcr.io/org/app",
            "?ns=docker.io",
            None,
            "ghcr.io",
            "org/app",
        ),
        ("", "gh/org/app", "", None, "ghcr.io", "org/app"),
        (
            "",
            "docker.io/library/app",
            "",
            None,
            "docker.io",
            "library/app",
        ),
        ("", "docker.io/app", "", None, "docker.io", "library/app"),
        (
            "",
            "index.docker.io/org/app",
            "",
            None,
            "docker.io",
            "org/app",
        ),
        (
            "",
            "registry.local/app",
            "",
            None,
            "registry.local:5000",
            "app",
        ),
        // 3. `ns`, unless it is ourselves.
        ("", "org/app", "?ns=ghcr.io", None, "ghcr.io", "org/app"),
        ("", "org/app", "?ns=GHCR.IO", None, "ghcr.io", "org/app"),
        ("", "org/app", "?ns=ghcr.io:80", None, "ghcr.io", "org/app"),
        (
            "",
            "org/app",
            "?ns=ghcr.io",
            Some("ghcr.mirror.test"),
            "ghcr.io",
            "org/app",
        ),
        (
            "",
            "app",
            "?ns=registry.local:5000",
            None,
            "registry.local:5000",
            "app",
        ),
        (
            "",
            "app",
            "?ns=registry.local%3A5000",
            None,
            "registry.local:5000",
            "app",
        ),
        ("", "app", "?ns=myorg", None, "myorg", "app"),
        (
            "",
            "app",
            "?ns=registry-1.docker.io",
            None,
            "docker.io",
            "library/app",
        ),
        ("", "org/app", &own, None, "docker.io", "org/app"),
        (
            "",
            "org/app",
            "?ns=cache.example",
            None,
            "docker.io",
            "org/app",
        ),
        (
            "",
            "org/app",
            "?ns=cache.example:5000",
            None,
            "docker.io",
            "org/app",
        ),
        // 4. The host.
        (
            "",
            "org/app",
            "",
            Some("ghcr.mirror.test"),
            "ghcr.io",
            "org/app",
        ),
        (
            "",
            "org/app",
            "",
            Some("GHCR.Mirror.test:80"),
            "ghcr.io",
            "org/app",
        ),
        // 5. The default. A dotless key is no part of it: a Docker Hub organisation may have that name.
        ("", "library/app", "", None, "docker.io", "library/app"),
        ("", "app", "", None, "docker.io", "library/app"),
        ("", "myorg/app", "", None, "docker.io", "myorg/app"),
        (
            "",
            "org/manifests/blobs",
            "",
            None,
            "docker.io",
            "org/manifests/blobs",
        ),
    ];
    for (prefix, repository, query, host, upstream, expected) in cases {
        let reply = world.ask(prefix, repository, query, *host).await;
        let case = format!("{prefix}/v2/{repository}{query} {host:?}");
        assert_eq!(reply.status(), 200, "{case}: {}", reply.text());
        assert_eq!(reply.text(), manifest(upstream, expected), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_configured_is_404_and_no_connection_is_made() {
    let world = World::new().await;
    let cases = [
        ("", "unknown.example/org/app", "", None),
        ("", "localhost.localdomain/org/app", "", None),
        ("", "org/app", "?ns=unknown.example", None),
        ("", "org/app", "?ns=127.0.0.1:1", None),
        ("", "org/app", "?ns=169.254.169.254", None),
        ("", "org/app", "?ns=ghcr.io:8443", None),
        ("/unknown.example", "org/app", "", None),
        ("/unknown", "org/app", "", None),
    ];
    for (prefix, repository, query, host) in cases {
        let reply = world.ask(prefix, repository, query, host).await;
        let case = format!("{prefix}/v2/{repository}{query}");
        assert_eq!(reply.status(), 404, "{case}: {}", reply.text());
        assert_eq!(reply.code(), "NAME_UNKNOWN", "{case}");
        assert!(
            reply.text().contains("upstreams"),
            "{case}: {}",
            reply.text()
        );
    }
    assert_eq!(world.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_namespaces_are_a_bad_request() {
    let world = World::new().await;
    let reply = world
        .ask("", "org/app", "?ns=ghcr.io&ns=docker.io", None)
        .await;
    assert_eq!(reply.status(), 400);
    assert_eq!(world.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_is_echoed_where_it_decided() {
    let world = World::new().await;
    for (repository, query, echo) in [
        ("org/app", "?ns=ghcr.io", Some("ghcr.io")),
        ("org/app", "", None),
        ("ghcr.io/org/app", "?ns=ghcr.io", None),
        ("org/app", "?ns=cache.example", None),
    ] {
        let reply = world.ask("", repository, query, None).await.expect(200);
        assert_eq!(reply.header("oci-namespace"), echo, "{repository}{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_hubs_short_names_get_library_in_path_and_scope() {
    let world = World::new().await;
    let hub = &world.fakes[0].1;
    let office =
        crate::fake::TokenOffice::new(world.layby.clock(), std::time::Duration::from_secs(60));
    hub.protect_with_tokens(&office, hub);
    world.ask("", "app", "", None).await.expect(200);
    let scope = &hub.record().of("GET", "/token")[0].query;
    assert!(
        scope.contains("repository%3Alibrary%2Fapp%3Apull")
            || scope.contains("repository:library/app:pull"),
        "{scope}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lead_back_to_us_by_the_way_the_client_came() {
    let world = World::new().await;
    for (path, link) in [
        ("/v2/org/app/tags/list?n=1", "</v2/org/app/tags/list?"),
        (
            "/ghcr.io/v2/org/app/tags/list?n=1",
            "</ghcr.io/v2/org/app/tags/list?",
        ),
        (
            "/v2/ghcr.io/org/app/tags/list?n=1",
            "</v2/ghcr.io/org/app/tags/list?",
        ),
        (
            "/v2/org/app/tags/list?n=1&ns=ghcr.io",
            "</v2/org/app/tags/list?",
        ),
    ] {
        let reply = world.layby.get(path).await.expect(200);
        let next = reply.header("link").expect("a link");
        assert!(
            next.starts_with(link) && next.ends_with(r#">; rel="next""#),
            "{next}"
        );
        let decoded = next.replace("%2E", ".");
        assert_eq!(
            decoded.contains("ns=ghcr.io"),
            path.contains("ns=ghcr.io"),
            "{next}"
        );
        let next = next.trim_start_matches('<').split('>').next().unwrap();
        let second = world.layby.get(next).await.expect(200);
        assert_eq!(reply.json()["tags"], json!(["latest"]));
        assert_eq!(second.json()["tags"], json!(["v1"]));
        assert_eq!(second.header("link"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_repositories_and_strangers_get_403_and_no_connection_is_made() {
    let world = World::new().await;
    let reply = world
        .ask("", "ghcr.io/secret/app", "", None)
        .await
        .expect(403);
    assert_eq!(reply.code(), "DENIED");
    assert_eq!(world.connections(), 0);

    let fake = Fake::start().await;
    let layby = Setup::over(&fake)
        .set("", r#"clients = ["192.0.2.0/24"]"#)
        .start()
        .await;
    let reply = layby.get("/v2/org/app/manifests/latest").await.expect(403);
    assert_eq!(reply.code(), "DENIED");
    let allowed = Setup::over(&fake)
        .set("", r#"clients = ["127.0.0.0/8"]"#)
        .start()
        .await;
    assert_eq!(allowed.get("/v2/").await.status(), 200);
    assert_eq!(fake.record().connections(), 0);
}
