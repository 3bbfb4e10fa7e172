//! Spellings of hosts, short names, filters, and the promise that the world is closed.

use proptest::prelude::*;

use super::*;

#[test]
fn hosts_compare_without_case() {
    assert_eq!(
        chosen(select("/GHCR.io/v2/org/app", "")),
        by_path("ghcr.io", "org/app")
    );
    assert_eq!(
        chosen(select("/v2/GHCR.IO/org/app", "")),
        by_path("ghcr.io", "org/app")
    );
    assert_eq!(
        chosen(select("/v2/org/app", "?ns=GHCR.IO")),
        by_ns("ghcr.io", "org/app", "ghcr.io")
    );
}

#[test]
fn hosts_compare_without_the_port_of_https_and_of_their_own_scheme() {
    for (ns, upstream) in [
        ("ghcr.io:443", Some("ghcr.io")),
        ("ghcr.io:80", None),
        ("old.corp:80", Some("old.corp")),
        ("old.corp:443", Some("old.corp")),
        ("plain.corp:8080", Some("plain.corp:8080")),
        ("plain.corp", Some("plain.corp:8080")),
        ("plain.corp:5000", None),
    ] {
        for (path, query) in [
            ("/v2/org/app".to_owned(), format!("?ns={ns}")),
            (format!("/{ns}/v2/org/app"), String::new()),
            (format!("/v2/{ns}/org/app"), String::new()),
        ] {
            let found = select(&path, &query).map(|selected| selected.place.upstream.to_string());
            assert_eq!(found.as_deref().ok(), upstream, "{path}{query}");
        }
    }
}

#[test]
fn a_key_with_a_port_needs_an_alias_without_one() {
    assert_unknown(
        select("/v2/reg.corp/org/app", ""),
        r#"list "reg.corp" in the aliases of [upstreams."reg.corp:5000"]"#,
    );
    assert_eq!(
        chosen(select("/v2/plain.corp/org/app", "")),
        by_path("plain.corp:8080", "org/app")
    );
    // Where a client can write the port, it counts.
    assert_eq!(
        chosen(select("/v2/reg.corp:5000/org/app", "?ns=reg.corp:5000")),
        by_path("reg.corp:5000", "org/app")
    );
}

#[test]
fn what_is_written_goes_before_what_follows_from_it() {
    let upstreams = [
        upstream("x.corp", "https://x.corp"),
        upstream("x.corp:443", "https://y.corp"),
    ]
    .map(Arc::new);
    let selector = Selector::of(&upstreams, &"x.corp".parse().unwrap(), &[]);
    for name in ["x.corp", "x.corp:443"] {
        let selected = selector.select(&target(&format!("/{name}/v2/a/manifests/x")), None);
        assert_eq!(selected.unwrap().place.upstream.as_str(), name);
    }
}

// library/, allow and deny.

#[test]
fn short_names_get_library_where_the_upstream_wants_it() {
    assert_eq!(
        chosen(select("/v2/ubuntu", "?ns=docker.io")),
        by_ns("docker.io", "library/ubuntu", "docker.io")
    );
    assert_eq!(
        chosen(select("/docker.io/v2/ubuntu", "")),
        by_path("docker.io", "library/ubuntu")
    );
    assert_eq!(
        chosen(select("/v2/ghcr.io/ubuntu", "")),
        by_path("ghcr.io", "ubuntu")
    );
    let too_long = format!("/v2/{}", "a".repeat(250));
    assert!(matches!(
        select(&too_long, ""),
        Err(SelectError::Name { .. })
    ));
}

#[test]
fn what_the_filter_keeps_out_is_forbidden_however_it_is_asked_for() {
    assert_eq!(
        chosen(select("/v2/few.corp/org/app", "")),
        by_path("few.corp", "org/app")
    );
    for (path, query) in [
        ("/v2/few.corp/org/secret", ""),
        ("/few.corp/v2/org/secret", ""),
        ("/v2/org/secret", "?ns=few.corp"),
        ("/v2/few.corp/other/app", ""),
        ("/v2/few.corp/org", ""),
    ] {
        let result = select(path, query);
        assert!(
            matches!(result, Err(SelectError::Forbidden { .. })),
            "{path}{query}: {result:?}"
        );
    }
}

proptest! {
    #[test]
    fn whatever_is_written_leads_to_a_configured_upstream_or_nowhere(
        prefix in prop::option::of("[a-z:.]{1,9}|ghcr.io|grafana"),
        name in "(([a-z]{1,3}\\.)?[a-z]{1,4}|ghcr\\.io|reg\\.corp:5000|team)(/[a-z]{1,4}){0,2}",
        ns in prop::option::of("[a-z:.]{0,9}|ghcr.io|layby.corp"),
        host in prop::option::of("[a-zA-Z:.\\[\\]0-9]{0,9}|ghcr.mirror.corp"),
    ) {
        let prefix = prefix.map(|prefix| format!("/{prefix}")).unwrap_or_default();
        let query = ns.map(|ns| format!("?ns={ns}")).unwrap_or_default();
        let uri = format!("{prefix}/v2/{name}/manifests/x{query}").parse();
        if let Ok(uri) = uri
            && let Ok(Route::Manifest { target, .. }) = Route::parse(&Method::GET, &uri)
            && let Ok(selected) = selector().select(&target, host.as_deref())
        {
            let name = &selected.place.upstream;
            prop_assert!(upstreams().iter().any(|one| one.name == *name));
            prop_assert!(selected.ns.is_none() || selected.ns == target.ns);
        }
    }
}

#[test]
fn a_repository_is_written_as_a_client_can_write_it_again() {
    for (upstream, repository, written) in [
        ("docker.io", "library/alpine", "library/alpine"),
        ("docker.io", "org/app", "org/app"),
        // Behind the default upstream's name where the plain name means another upstream.
        ("docker.io", "team/app", "docker.io/team/app"),
        ("ghcr.io", "org/app", "ghcr.io/org/app"),
        ("bitnami", "org/app", "team/org/app"),
        ("plain.corp:8080", "org/app", "plain.corp/org/app"),
        // No name leads to these in a path; before `/v2/` the key does.
        ("grafana", "org/app", "grafana/org/app"),
        ("reg.corp:5000", "org/app", "reg.corp:5000/org/app"),
    ] {
        let place = Place {
            upstream: upstream.parse().unwrap(),
            repository: repository.parse().unwrap(),
        };
        assert_eq!(selector().written(&place), written);
    }
}
