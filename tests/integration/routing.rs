//! Which upstream a request is for: each step of the order, and what is easily confused.

use std::time::Duration;

use serde_json::json;

use crate::fake::{Content, Fake, TokenOffice};
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
                let body = manifest(&format!("{name} {repository}"));
                let digest = fake.put_manifest(repository, OCI_MANIFEST, body);
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

    /// Asks for the manifest `latest` of what `case` names, as [`CASES`] are written.
    async fn ask(&self, case: &str) -> Reply {
        let (target, host) = case.split_once(" @").unwrap_or((case, ""));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = if query.is_empty() {
            String::new()
        } else {
            format!("?{query}")
        };
        let request = Request::get(format!("{path}/manifests/latest{query}"));
        let request = match host {
            "" => request,
            host => request.host(host),
        };
        request.send_to(self.layby.address()).await
    }
}

fn manifest(from: &str) -> String {
    let body = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "a/b", "size": 2, "digest": Content::bytes("{}").digest().as_str() },
        "layers": [],
        "annotations": { "from": from },
    });
    body.to_string()
}

/// A request for a repository, ` @` its `Host` where that matters, and the upstream and the repository it is for.
const CASES: &[(&str, &str)] = &[
    // 1. A prefix before /v2/.
    ("/ghcr.io/v2/org/app", "ghcr.io org/app"),
    ("/GHCR.io/v2/org/app", "ghcr.io org/app"),
    ("/ghcr.io/v2/org/app?ns=docker.io", "ghcr.io org/app"),
    ("/gh/v2/org/app", "ghcr.io org/app"),
    ("/myorg/v2/app", "myorg app"),
    ("/docker.io/v2/app", "docker.io library/app"),
    ("/registry.local:5000/v2/app", "registry.local:5000 app"),
    ("/registry.local/v2/app", "registry.local:5000 app"),
    // 2. A first component that is an upstream; it is stripped, whatever `ns` says.
    ("/v2/ghcr.io/org/app", "ghcr.io org/app"),
    ("/v2/ghcr.io/org/app?ns=ghcr.io", "ghcr.io org/app"),
    ("/v2/ghcr.io/org/app?ns=docker.io", "ghcr.io org/app"),
    ("/v2/gh/org/app", "ghcr.io org/app"),
    ("/v2/docker.io/library/app", "docker.io library/app"),
    ("/v2/docker.io/app", "docker.io library/app"),
    ("/v2/index.docker.io/org/app", "docker.io org/app"),
    ("/v2/registry.local/app", "registry.local:5000 app"),
    // 3. `ns`, unless it is ourselves.
    ("/v2/org/app?ns=ghcr.io", "ghcr.io org/app"),
    ("/v2/org/app?ns=GHCR.IO", "ghcr.io org/app"),
    ("/v2/org/app?ns=ghcr.io:80", "ghcr.io org/app"),
    ("/v2/org/app?ns=ghcr.io:443", "ghcr.io org/app"),
    (
        "/v2/org/app?ns=ghcr.io @ghcr.mirror.test",
        "ghcr.io org/app",
    ),
    ("/v2/app?ns=registry.local:5000", "registry.local:5000 app"),
    (
        "/v2/app?ns=registry.local%3A5000",
        "registry.local:5000 app",
    ),
    ("/v2/app?ns=myorg", "myorg app"),
    ("/v2/app?ns=registry-1.docker.io", "docker.io library/app"),
    ("/v2/org/app?ns=OURSELVES", "docker.io org/app"),
    ("/v2/org/app?ns=cache.example", "docker.io org/app"),
    ("/v2/org/app?ns=cache.example:5000", "docker.io org/app"),
    // 4. The host.
    ("/v2/org/app @ghcr.mirror.test", "ghcr.io org/app"),
    ("/v2/org/app @GHCR.Mirror.test:80", "ghcr.io org/app"),
    // 5. The default. A dotless key is no part of it: a Docker Hub organisation may have that name.
    ("/v2/library/app", "docker.io library/app"),
    ("/v2/app", "docker.io library/app"),
    ("/v2/myorg/app", "docker.io myorg/app"),
    ("/v2/org/manifests/blobs", "docker.io org/manifests/blobs"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_the_order_finds_its_upstream() {
    let world = World::new().await;
    let address = world.layby.address().to_string();
    for (case, expected) in CASES {
        let case = case.replace("OURSELVES", &address);
        let reply = world.ask(&case).await;
        assert_eq!(reply.status(), 200, "{case}: {}", reply.text());
        assert_eq!(reply.text(), manifest(expected), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_configured_is_404_and_no_connection_is_made() {
    let world = World::new().await;
    for case in [
        "/v2/unknown.example/org/app",
        "/v2/localhost.localdomain/org/app",
        "/v2/org/app?ns=unknown.example",
        "/v2/org/app?ns=127.0.0.1:1",
        "/v2/org/app?ns=169.254.169.254",
        "/v2/org/app?ns=ghcr.io:8443",
        "/unknown.example/v2/org/app",
        "/unknown/v2/org/app",
    ] {
        let reply = world.ask(case).await;
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
    let reply = world.ask("/v2/org/app?ns=ghcr.io&ns=docker.io").await;
    assert_eq!(reply.status(), 400);
    assert_eq!(world.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_is_echoed_where_it_decided() {
    let world = World::new().await;
    for (case, echo) in [
        ("/v2/org/app?ns=ghcr.io", Some("ghcr.io")),
        ("/v2/org/app", None),
        ("/v2/ghcr.io/org/app?ns=ghcr.io", None),
        ("/v2/org/app?ns=cache.example", None),
    ] {
        let reply = world.ask(case).await.expect(200);
        assert_eq!(reply.header("oci-namespace"), echo, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_hubs_short_names_get_library_in_path_and_scope() {
    let world = World::new().await;
    let hub = &world.fakes[0].1;
    let office = TokenOffice::new(world.layby.clock(), Duration::from_secs(60));
    hub.protect_with_tokens(&office, hub);
    world.ask("/v2/app").await.expect(200);
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
        assert_eq!(
            next.contains("ns=ghcr.io"),
            path.contains("ns=ghcr.io"),
            "{next}"
        );
        let next = next
            .trim_start_matches('<')
            .split('>')
            .next()
            .unwrap_or_default();
        let second = world.layby.get(next).await.expect(200);
        assert_eq!(reply.json()["tags"], json!(["latest"]));
        assert_eq!(second.json()["tags"], json!(["v1"]));
        assert_eq!(second.header("link"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_repositories_and_strangers_get_403_and_no_connection_is_made() {
    let world = World::new().await;
    let reply = world.ask("/v2/ghcr.io/secret/app").await.expect(403);
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
