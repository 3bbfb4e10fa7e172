//! The steps of the order, each with what can be confused with it.

use std::time::Duration;

use http::Method;

use super::*;
use crate::config::{ProxyChoice, RepositoryFilter, TagPolicy, UpstreamUrl};
use crate::oci::Route;

mod names;

fn upstream(name: &str, url: &str) -> Upstream {
    Upstream {
        name: name.parse().unwrap(),
        urls: vec![UpstreamUrl {
            url: url.parse().unwrap(),
            credentials: None,
        }],
        aliases: Vec::new(),
        hosts: Vec::new(),
        prefixes: Vec::new(),
        repositories: RepositoryFilter::new(&["**".to_owned()], &[]).unwrap(),
        tags: TagPolicy {
            ttl: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::MAX,
            stale_if_gone: Duration::MAX,
            stale_if_denied: Duration::MAX,
            negative_ttl: Duration::ZERO,
        },
        token_hosts: Vec::new(),
        ca_file: None,
        client_cert: None,
        proxy: ProxyChoice::Direct,
        send_ns: false,
        parallel: 1,
        allow_private: false,
        library: false,
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Docker Hub, GHCR, and one of each kind of key that can be confused with something else.
fn upstreams() -> Vec<Upstream> {
    vec![
        Upstream {
            aliases: words(&["index.docker.io", "registry-1.docker.io"]),
            library: true,
            ..upstream("docker.io", "https://registry-1.docker.io")
        },
        Upstream {
            hosts: words(&["ghcr.mirror.corp", "ghcr.corp:8443"]),
            ..upstream("ghcr.io", "https://ghcr.io")
        },
        // Named like an organisation of Docker Hub.
        upstream("grafana", "https://grafana.corp"),
        Upstream {
            prefixes: words(&["team"]),
            ..upstream("bitnami", "https://bitnami.corp")
        },
        upstream("reg.corp:5000", "https://reg.corp:5000"),
        Upstream {
            aliases: words(&["plain.corp"]),
            ..upstream("plain.corp:8080", "http://plain.corp:8080")
        },
        upstream("old.corp", "http://old.corp"),
        Upstream {
            repositories: RepositoryFilter::new(&words(&["org/**"]), &words(&["org/secret"]))
                .unwrap(),
            ..upstream("few.corp", "https://few.corp")
        },
    ]
}

fn selector() -> Selector {
    let upstreams: Vec<Arc<Upstream>> = upstreams().into_iter().map(Arc::new).collect();
    Selector::of(
        &upstreams,
        &"docker.io".parse().unwrap(),
        &words(&["layby.corp", "reg.corp"]),
    )
}

fn target(uri: &str) -> Target {
    match Route::parse(&Method::GET, &uri.parse().unwrap()) {
        Ok(Route::Manifest { target, .. }) => target,
        other => panic!("{uri}: {other:?}"),
    }
}

const OUR_HOST: &str = "layby.corp:5000";

/// What is chosen for `path` and `query`, from a client that reaches us as `host`.
fn select_at(host: &str, path: &str, query: &str) -> Result<Selected, SelectError> {
    selector().select(&target(&format!("{path}/manifests/x{query}")), Some(host))
}

fn select(path: &str, query: &str) -> Result<Selected, SelectError> {
    select_at(OUR_HOST, path, query)
}

/// Upstream, repository and the `ns` that decided.
fn chosen(result: Result<Selected, SelectError>) -> (String, String, Option<String>) {
    let selected = result.unwrap();
    let place = selected.place;
    (
        place.upstream.to_string(),
        place.repository.to_string(),
        selected.ns,
    )
}

fn by_path(upstream: &str, repository: &str) -> (String, String, Option<String>) {
    (upstream.to_owned(), repository.to_owned(), None)
}

fn by_ns(upstream: &str, repository: &str, ns: &str) -> (String, String, Option<String>) {
    (
        upstream.to_owned(),
        repository.to_owned(),
        Some(ns.to_owned()),
    )
}

#[track_caller]
fn assert_unknown(result: Result<Selected, SelectError>, hint: &str) {
    match result {
        Err(error @ SelectError::Unknown { .. }) => {
            assert!(error.to_string().contains(hint), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

// Step 1: a prefix before /v2/.

#[test]
fn a_prefix_is_a_key_an_alias_or_a_listed_prefix() {
    for (prefix, upstream) in [
        ("ghcr.io", "ghcr.io"),
        ("index.docker.io", "docker.io"),
        ("grafana", "grafana"),
        ("team", "bitnami"),
        ("bitnami", "bitnami"),
        ("reg.corp:5000", "reg.corp:5000"),
    ] {
        let selected = select(&format!("/{prefix}/v2/org/app"), "").unwrap();
        assert_eq!(selected.place.upstream.as_str(), upstream);
        assert_eq!(selected.link_base, format!("/{prefix}/v2/org/app"));
    }
}

#[test]
fn a_prefix_wins_over_first_component_ns_and_host() {
    assert_eq!(
        chosen(select_at(
            "ghcr.mirror.corp",
            "/reg.corp:5000/v2/ghcr.io/app",
            "?ns=docker.io"
        )),
        by_path("reg.corp:5000", "ghcr.io/app")
    );
}

#[test]
fn an_unknown_prefix_is_never_passed_over() {
    for prefix in [
        "nowhere.example",
        "nowhere",
        "a/b",
        "ghcr.io/org",
        "169.254.169.254",
        "ghcr.io:444",
    ] {
        assert_unknown(
            select_at(
                "ghcr.mirror.corp",
                &format!("/{prefix}/v2/org/app"),
                "?ns=ghcr.io",
            ),
            &format!("[upstreams.{prefix:?}]"),
        );
    }
}

// Step 2: the first component.

#[test]
fn a_first_component_with_a_dot_that_is_an_upstream_is_taken_off() {
    for (path, upstream, repository) in [
        ("/v2/ghcr.io/org/app", "ghcr.io", "org/app"),
        ("/v2/docker.io/ubuntu", "docker.io", "library/ubuntu"),
        ("/v2/registry-1.docker.io/org/app", "docker.io", "org/app"),
        ("/v2/ghcr.io/ghcr.io/app", "ghcr.io", "ghcr.io/app"),
        ("/v2/ghcr.io/docker.io", "ghcr.io", "docker.io"),
        ("/v2/team/app", "bitnami", "app"),
    ] {
        let selected = select(path, "").unwrap();
        assert_eq!(selected.link_base, path);
        assert_eq!(chosen(Ok(selected)), by_path(upstream, repository));
    }
}

#[test]
fn a_first_component_wins_over_ns_and_host() {
    // containerd with override_path sends both.
    assert_eq!(
        chosen(select("/v2/ghcr.io/org/app", "?ns=ghcr.io")),
        by_path("ghcr.io", "org/app")
    );
    assert_eq!(
        chosen(select_at(
            "ghcr.mirror.corp",
            "/v2/docker.io/org/app",
            "?ns=ghcr.io"
        )),
        by_path("docker.io", "org/app")
    );
    assert_eq!(
        chosen(select("/v2/ghcr.io/org/app", "?ns=unknown.example")),
        by_path("ghcr.io", "org/app")
    );
}

#[test]
fn a_key_without_a_dot_is_never_taken_from_a_plain_path() {
    for organisation in ["grafana", "bitnami"] {
        assert_eq!(
            chosen(select(&format!("/v2/{organisation}/app"), "")),
            by_path("docker.io", &format!("{organisation}/app"))
        );
    }
    assert_eq!(
        chosen(select("/v2/grafana/app", "?ns=grafana")),
        by_ns("grafana", "grafana/app", "grafana")
    );
}

#[test]
fn an_upstream_alone_names_no_repository() {
    for path in ["/v2/ghcr.io", "/v2/team"] {
        assert_unknown(select(path, ""), "/org/app");
    }
}

// Step 3: ns.

#[test]
fn ns_decides_and_is_echoed_then() {
    for (query, upstream, ns) in [
        ("?ns=ghcr.io", "ghcr.io", "ghcr.io"),
        (
            "?ns=registry-1.docker.io",
            "docker.io",
            "registry-1.docker.io",
        ),
        ("?ns=grafana", "grafana", "grafana"),
        ("?ns=reg.corp%3A5000", "reg.corp:5000", "reg.corp:5000"),
    ] {
        let selected = select("/v2/org/app", query).unwrap();
        assert_eq!(selected.link_base, "/v2/org/app");
        assert_eq!(chosen(Ok(selected)), by_ns(upstream, "org/app", ns));
    }
}

#[test]
fn ns_wins_over_the_host_and_keeps_an_unknown_first_component() {
    assert_eq!(
        chosen(select_at(
            "ghcr.mirror.corp",
            "/v2/my.group/app",
            "?ns=docker.io"
        )),
        by_ns("docker.io", "my.group/app", "docker.io")
    );
}

#[test]
fn an_ns_that_is_ourselves_is_passed_over() {
    for ns in [
        "layby.corp:5000",
        "LAYBY.corp:5000",
        "layby.corp",
        "layby.corp:8443",
        "reg.corp",
    ] {
        let query = format!("?ns={ns}");
        assert_eq!(
            chosen(select("/v2/org/app", &query)),
            by_path("docker.io", "org/app"),
            "{ns}"
        );
        assert_unknown(select("/v2/foo.example/app", &query), "foo.example");
        assert_eq!(
            chosen(select("/v2/ghcr.io/app", &query)),
            by_path("ghcr.io", "app"),
            "{ns}"
        );
    }
    for (host, ns) in [
        ("10.0.0.1:5000", "10.0.0.1:5000"),
        ("mirror", "mirror:80"),
        ("mirror:443", "mirror"),
    ] {
        let result = select_at(host, "/v2/org/app", &format!("?ns={ns}"));
        assert_eq!(chosen(result), by_path("docker.io", "org/app"), "{ns}");
    }
}

#[test]
fn an_upstream_on_another_port_of_our_own_name_is_not_ourselves() {
    assert_eq!(
        chosen(select("/v2/org/app", "?ns=reg.corp:5000")),
        by_ns("reg.corp:5000", "org/app", "reg.corp:5000")
    );
    assert_unknown(
        select_at("10.0.0.1:5000", "/v2/org/app", "?ns=10.0.0.1:5001"),
        "10.0.0.1:5001",
    );
}

#[test]
fn an_unknown_ns_does_not_fall_to_the_default_upstream() {
    for ns in [
        "unknown.example",
        "localhost",
        "169.254.169.254",
        "ghcr.io.evil.example",
        "http://ghcr.io",
    ] {
        assert_unknown(select("/v2/org/app", &format!("?ns={ns}")), ns);
    }
    // A host that is ours by configuration is something else to choose by.
    assert_eq!(
        chosen(select_at(
            "ghcr.mirror.corp",
            "/v2/org/app",
            "?ns=unknown.example"
        )),
        by_path("ghcr.io", "org/app")
    );
}

// Step 4: the Host header.

#[test]
fn a_listed_host_decides_on_every_port_unless_it_names_one() {
    for host in [
        "ghcr.mirror.corp",
        "GHCR.Mirror.Corp:443",
        "ghcr.mirror.corp:5000",
        "ghcr.corp:8443",
    ] {
        assert_eq!(
            chosen(select_at(host, "/v2/org/app", "")),
            by_path("ghcr.io", "org/app"),
            "{host}"
        );
    }
    for host in [
        "ghcr.corp",
        "ghcr.corp:5000",
        "x.ghcr.mirror.corp",
        "ghcr.io",
        "",
    ] {
        assert_eq!(
            chosen(select_at(host, "/v2/org/app", "")),
            by_path("docker.io", "org/app"),
            "{host}"
        );
    }
    assert_eq!(
        chosen(select_at("ghcr.mirror.corp", "/v2/my.group/app", "")),
        by_path("ghcr.io", "my.group/app")
    );
}

// Step 5: the default upstream.

#[test]
fn the_default_upstream_is_for_what_names_no_registry() {
    let no_host = |path: &str| selector().select(&target(&format!("{path}/manifests/x")), None);
    assert_eq!(
        chosen(no_host("/v2/ubuntu")),
        by_path("docker.io", "library/ubuntu")
    );
    assert_eq!(
        chosen(no_host("/v2/library/ubuntu")),
        by_path("docker.io", "library/ubuntu")
    );
    assert_eq!(
        chosen(no_host("/v2/org/my.app")),
        by_path("docker.io", "org/my.app")
    );
}

#[test]
fn a_first_component_that_nobody_configured_is_unknown() {
    for (path, name) in [
        ("/v2/unknown.example/org/app", "unknown.example"),
        ("/v2/unknown.example/app", "unknown.example"),
        ("/v2/localhost:5000/app", "localhost:5000"),
        ("/v2/Unknown.Example/app", "unknown.example"),
        ("/v2/169.254.169.254/latest", "169.254.169.254"),
    ] {
        assert_unknown(select(path, ""), &format!("[upstreams.{name:?}]"));
    }
    // What is written with a port or in capitals can be no repository of a registry that ns names.
    assert_unknown(
        select("/v2/localhost:5000/app", "?ns=ghcr.io"),
        "localhost:5000",
    );
}
