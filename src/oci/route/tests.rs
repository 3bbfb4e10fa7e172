use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn get(uri: &str) -> Result<Route, RouteError> {
    Route::parse(&Method::GET, &uri.parse().unwrap())
}

fn digest() -> Digest {
    format!("sha256:{HEX}").parse().unwrap()
}

fn target(prefix: Option<&str>, name: &str, ns: Option<&str>) -> Target {
    Target {
        prefix: prefix.map(str::to_owned),
        registry: None,
        repository: name.parse().unwrap(),
        ns: ns.map(str::to_owned),
    }
}

fn manifest(target: Target, reference: &str) -> Route {
    Route::Manifest {
        target,
        reference: reference.parse().unwrap(),
    }
}

fn blob(target: Target) -> Route {
    Route::Blob {
        target,
        digest: digest(),
    }
}

#[test]
fn the_base_is_found_with_and_without_slash_and_prefix() {
    for uri in [
        "/v2/",
        "/v2",
        "//v2//",
        "/ghcr.io/v2/",
        "/a/b/v2",
        "http://h:1/v2/",
    ] {
        assert_eq!(get(uri), Ok(Route::Base), "{uri}");
    }
    assert_eq!(get("/healthz"), Ok(Route::Health));
}

#[test]
fn content_is_found_by_tag_and_by_digest() {
    let plain = || target(None, "library/ubuntu", None);
    assert_eq!(
        get("/v2/library/ubuntu/manifests/24.04"),
        Ok(manifest(plain(), "24.04"))
    );
    assert_eq!(
        get(&format!("/v2/library/ubuntu/manifests/sha256:{HEX}")),
        Ok(manifest(plain(), &format!("sha256:{HEX}")))
    );
    assert_eq!(
        get(&format!("/v2/library/ubuntu/blobs/sha256:{HEX}")),
        Ok(blob(plain()))
    );
}

#[test]
fn an_encoded_colon_and_doubled_slashes_are_normal() {
    let route = Ok(blob(target(None, "org/app", Some("ghcr.io"))));
    for uri in [
        format!("/v2/org/app/blobs/sha256%3A{HEX}?ns=ghcr.io"),
        format!("/v2/org/app/blobs/sha256%3a{HEX}?ns=ghcr%2Eio"),
        format!("//v2//org///app/blobs//sha256:{HEX}/?ns=GHCR.io"),
        format!("/v2/org%2Fapp/blobs/sha256:{HEX}?&n%73=ghcr.io&"),
    ] {
        assert_eq!(get(&uri), route, "{uri}");
    }
}

#[test]
fn dots_between_slashes_are_refused_however_they_are_written() {
    for uri in [
        "/v2/../v2/a/manifests/x",
        "/v2/a/../../etc/passwd",
        "/v2/a/%2e%2e/manifests/x",
        "/v2/a/%2E./manifests/x",
        "/v2/a/./manifests/x",
        "/v2/a/manifests/..",
        "/v2/a%2F..%2Fb/manifests/x",
        "/v2/%ff/manifests/x",
    ] {
        assert_eq!(get(uri), Err(RouteError::Path), "{uri}");
    }
    assert!(matches!(
        get("/v2/a/%252e%252e/manifests/x"),
        Err(RouteError::Name { .. })
    ));
}

#[test]
fn a_path_is_read_from_the_right() {
    assert_eq!(
        get("/v2/a/blobs/manifests/tags/manifests/latest"),
        Ok(manifest(
            target(None, "a/blobs/manifests/tags", None),
            "latest"
        ))
    );
    assert_eq!(
        get("/v2/tags/manifests/list"),
        Ok(manifest(target(None, "tags", None), "list"))
    );
    assert_eq!(
        get("/v2/a/blobs/uploads/manifests/x"),
        Ok(manifest(target(None, "a/blobs/uploads", None), "x"))
    );
    assert_eq!(
        get("/v2/a/manifests/tags/list"),
        Ok(Route::Tags {
            target: target(None, "a/manifests", None),
            query: TagsQuery::default(),
        })
    );
    assert_eq!(
        get(&format!("/v2/manifests/referrers/blobs/sha256:{HEX}")),
        Ok(blob(target(None, "manifests/referrers", None)))
    );
}

#[test]
fn the_first_version_component_ends_the_prefix() {
    assert_eq!(
        get("/ghcr.io/v2/org/v2/app/manifests/x"),
        Ok(manifest(target(Some("ghcr.io"), "org/v2/app", None), "x"))
    );
    assert_eq!(
        get("/v2/v2/app/manifests/x"),
        Ok(manifest(target(None, "v2/app", None), "x"))
    );
    assert_eq!(
        get("/a/b/v2/app/manifests/x"),
        Ok(manifest(target(Some("a/b"), "app", None), "x"))
    );
}

#[test]
fn a_host_that_is_no_part_of_a_name_is_kept_apart() {
    for (uri, registry) in [
        ("/v2/GHCR.io/org/app/manifests/x", "ghcr.io"),
        ("/v2/reg.corp:5000/org/app/manifests/x", "reg.corp:5000"),
        ("/v2/localhost%3A5000/org/app/manifests/x", "localhost:5000"),
    ] {
        let expected = Target {
            registry: Some(registry.to_owned()),
            ..target(None, "org/app", None)
        };
        assert_eq!(get(uri), Ok(manifest(expected, "x")), "{uri}");
    }
    for uri in [
        "/ghcr.io/v2/GHCR.io/app/manifests/x",
        "/v2/Org/app/manifests/x",
        "/v2/GHCR.io/manifests/x",
        "/v2/reg:port/app/manifests/x",
        "/v2/reg:5000:5000/app/manifests/x",
    ] {
        assert!(matches!(get(uri), Err(RouteError::Name { .. })), "{uri}");
    }
}

#[test]
fn a_target_gives_back_the_path_that_named_it() {
    for path in [
        "/v2/a",
        "/ghcr.io/v2/org/app",
        "/v2/reg.corp:5000/org/app",
        "/v2/ghcr.io/org/app",
    ] {
        let Ok(Route::Manifest { target, .. }) = get(&format!("{path}/manifests/x")) else {
            panic!("{path}");
        };
        assert_eq!(target.path(), path);
    }
}

#[test]
fn two_namespaces_are_refused_and_an_empty_one_is_none() {
    for uri in [
        "/v2/a/manifests/x?ns=a.io&ns=b.io",
        "/v2/a/manifests/x?ns=a.io&ns=a.io",
        "/v2/a/manifests/x?ns=a.io&%6es=b.io",
        "/v2/a/tags/list?ns&ns=b.io",
    ] {
        assert_eq!(get(uri), Err(RouteError::TwoNamespaces), "{uri}");
    }
    assert_eq!(
        get("/v2/a/manifests/x?ns="),
        Ok(manifest(target(None, "a", None), "x"))
    );
}

#[test]
fn other_methods_are_told_from_other_paths() {
    for method in [
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::CONNECT,
    ] {
        for uri in [
            "/v2/a/blobs/uploads/",
            "/v2/a/manifests/x",
            "/v2/",
            "/nowhere",
        ] {
            assert_eq!(
                Route::parse(&method, &uri.parse().unwrap()),
                Err(RouteError::Method),
                "{method} {uri}"
            );
        }
    }
    assert_eq!(
        Route::parse(&Method::HEAD, &"/v2/".parse().unwrap()),
        Ok(Route::Base)
    );
}

#[test]
fn what_is_no_endpoint_is_not_found() {
    for uri in [
        "/",
        "*",
        "/v1/",
        "/V2/",
        "/healthz/x",
        "/v2/a",
        "/v2/a/manifests",
        "/v2/a/manifests/x/y",
        "/v2/a/tags",
        "/v2/a/blobs/uploads/",
        "/v2/a/blobs/uploads/0d8c",
        "/v2/_oci/ext/discover",
    ] {
        assert_eq!(get(uri), Err(RouteError::NotFound), "{uri}");
    }
}

#[test]
fn what_is_misspelt_says_what_it_should_have_been() {
    assert!(matches!(
        get("/v2/a__b/manifests/-x"),
        Err(RouteError::Reference { .. })
    ));
    assert!(matches!(
        get("/v2/a/manifests/sha256:bad"),
        Err(RouteError::Reference { .. })
    ));
    assert!(matches!(
        get("/v2/a/blobs/sha256:bad"),
        Err(RouteError::Digest { .. })
    ));
    assert!(matches!(
        get("/v2/a/referrers/latest"),
        Err(RouteError::Digest { .. })
    ));
    assert!(matches!(
        get("/v2/manifests/x"),
        Err(RouteError::Name { .. })
    ));
    let long = format!("/v2/{}/manifests/x", "a/".repeat(2000));
    let message = get(&long).unwrap_err().to_string();
    assert!(message.len() < 300 && message.contains("255"), "{message}");
}

#[test]
fn a_page_is_read_and_an_upstreams_own_cursor_is_kept() {
    let Ok(Route::Tags { query, .. }) =
        get("/v2/a/tags/list?next_page=x%2By+z&ns=q.io&n=5&last=v1")
    else {
        panic!("tags");
    };
    assert_eq!((query.n, query.last.as_deref()), (Some(5), Some("v1")));
    assert_eq!(query.as_query(), "last=v1&n=5&next_page=x%2By+z");
    assert_eq!(
        TagsQuery::new(Some(5), Some("v1")).as_query(),
        "last=v1&n=5"
    );
    assert_eq!(TagsQuery::new(None, Some("a&b")).as_query(), "last=a%26b");
    assert_eq!(
        get("/v2/_catalog?n=0&last=docker.io%2Fa"),
        Ok(Route::Catalog {
            n: Some(0),
            last: Some("docker.io/a".to_owned())
        })
    );
    assert_eq!(
        get("/v2/_catalog?n="),
        Ok(Route::Catalog {
            n: None,
            last: None
        })
    );
    for bad in ["-1", "x", "1.5", "4294967296", "%2B1"] {
        let uri = format!("/v2/a/tags/list?n={bad}");
        assert!(
            matches!(get(&uri), Err(RouteError::PageSize { .. })),
            "{uri}"
        );
    }
}

#[test]
fn referrers_keep_their_filters_and_a_query_that_does_not_depend_on_order() {
    let uri = |query: &str| format!("/v2/a/referrers/sha256:{HEX}?{query}");
    let one = get(&uri(
        "ns=q.io&artifactType=a/b%2Bjson&artifactType=a/c+json",
    ))
    .unwrap();
    let Route::Referrers {
        artifact_types,
        query,
        ..
    } = &one
    else {
        panic!("{one:?}");
    };
    assert_eq!(artifact_types, &["a/b+json", "a/c+json"]);
    assert_eq!(query, "artifactType=a/b%2Bjson&artifactType=a/c+json");
    let Ok(Route::Referrers { query: turned, .. }) =
        get(&uri("artifactType=a/c+json&artifactType=a/b%2Bjson"))
    else {
        panic!("referrers");
    };
    assert_eq!(&turned, query);
}

const COMPONENT: &str = "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}";

fn a_name() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => COMPONENT.boxed(),
        1 => prop::sample::select(vec!["blobs", "manifests", "tags", "referrers", "uploads", "list", "v2"])
            .prop_map(str::to_owned)
            .boxed(),
    ];
    prop::collection::vec(word, 1..5).prop_map(|words| words.join("/"))
}

proptest! {
    #[test]
    fn every_request_has_an_answer(
        method in prop::sample::select(vec![Method::GET, Method::HEAD, Method::POST]),
        path in "(/(v2|\\.|%2e|%[0-9a-fA-F]{2}|[!-~]{0,6}|blobs|manifests|tags|list|referrers|_catalog)){0,8}",
        query in "(\\?[!-~]{0,24}(&(ns|n|last|artifactType)=?[!-~]{0,5}){0,3})?",
    ) {
        if let Ok(uri) = format!("{path}{query}").parse::<Uri>()
            && let Err(error) = Route::parse(&method, &uri)
        {
            prop_assert!(error.to_string().len() < 2000);
        }
    }

    #[test]
    fn what_was_written_is_what_is_read(
        prefix in prop::option::of("[a-z]{1,5}\\.[a-z]{2}(:[1-9][0-9]{1,3})?"),
        name in a_name(),
        tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}",
        ns in prop::option::of("[a-z]{1,5}\\.[a-z]{2}(:[1-9][0-9]{1,3})?"),
    ) {
        let expected = target(prefix.as_deref(), &name, ns.as_deref());
        let query = ns.map(|ns| format!("?ns={ns}")).unwrap_or_default();
        let path = expected.path();
        prop_assert_eq!(
            get(&format!("{path}/manifests/{tag}{query}")),
            Ok(manifest(expected.clone(), &tag))
        );
        prop_assert_eq!(
            get(&format!("{path}/blobs/sha256%3A{HEX}{query}")),
            Ok(blob(expected.clone()))
        );
        prop_assert_eq!(
            get(&format!("{path}/tags/list{query}")),
            Ok(Route::Tags { target: expected.clone(), query: TagsQuery::default() })
        );
        prop_assert_eq!(
            get(&format!("{path}/referrers/sha256:{HEX}{query}")),
            Ok(Route::Referrers {
                target: expected,
                digest: digest(),
                artifact_types: Vec::new(),
                query: String::new(),
            })
        );
    }
}
